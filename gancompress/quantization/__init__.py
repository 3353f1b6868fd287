"""Float programs in bytes: ranges from calibration inputs, int8 weights, equalisation, layers that stay in float."""
