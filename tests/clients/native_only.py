"""Cases that LightOS does not serve, with the reason: under the shim their first such call answers CUDA_ERROR_NOT_SUPPORTED."""

NATIVE_ONLY = {
    "ipc_memory_of_a_native_process": "device memory of a process outside of LightOS cannot be mapped at one address in program and executor",
    "mapped_heap_memory": "kernels do not reach parts of the program's heap",
    "managed_variables": "the driver of the process that loads an image chooses the address of its managed variables",
    "exportable_pool": "pools have no handles for other processes",
}
