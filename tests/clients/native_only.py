"""Cases that LightOS does not serve, with the reason: under the shim their first such call answers CUDA_ERROR_NOT_SUPPORTED."""

NATIVE_ONLY = {}
