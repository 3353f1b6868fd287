"""What a network is, as it was built: kept in every checkpoint and packed file, and built again from there."""
