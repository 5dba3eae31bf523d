"""Physical memory as cuMemCreate makes it, for cases about mapping it and about sharing it."""

from __future__ import annotations

import ctypes

import numpy as np

from device import Session, driver, ok

HANDLE_TYPES = driver.CUmemAllocationHandleType
POSIX_FD = HANDLE_TYPES.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR


def properties(gpu: Session, handle_type=HANDLE_TYPES.CU_MEM_HANDLE_TYPE_NONE, rdma: bool = False):
    """Of memory on the session's device."""
    prop = driver.CUmemAllocationProp()
    prop.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    prop.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    prop.location.id = int(gpu.device)
    prop.requestedHandleTypes = handle_type
    prop.allocFlags.gpuDirectRDMACapable = int(rdma)
    return prop


def access(gpu: Session):
    """For the session's device."""
    descriptor = driver.CUmemAccessDesc()
    descriptor.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    descriptor.location.id = int(gpu.device)
    descriptor.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    return [descriptor]


class HostMemory:
    """Memory of the host, mapped for the processor and the device: `view` counts up from 0."""

    def __init__(self, gpu: Session, size: int, kind: driver.CUmemLocationType, handle_type=HANDLE_TYPES.CU_MEM_HANDLE_TYPE_NONE):
        prop = properties(gpu, handle_type)
        prop.location.type, prop.location.id = kind, 0
        self.handle = ok(driver.cuMemCreate(size, prop, 0))
        self.address = int(ok(driver.cuMemAddressReserve(size, 0, 0, 0)))
        ok(driver.cuMemMap(self.address, size, 0, self.handle, 0))
        processor = driver.CUmemAccessDesc()
        processor.location, processor.flags = prop.location, access(gpu)[0].flags
        ok(driver.cuMemSetAccess(self.address, size, [*access(gpu), processor], 2))
        self.view = np.frombuffer((ctypes.c_char * size).from_address(self.address), np.int32)
        self.view[:] = np.arange(size // 4, dtype=np.int32)
