"""What the two networks optimise: adversarial losses, gradient penalties, augmentation."""
