//! Functions that stay with the local driver, which has a real context in this process.
//!
//! They either do not depend on device state (versions, device attributes, occupancy, tensor-map encoding), or act on local
//! twins whose state is true (graphs under construction, arrays' descriptors, handles' own properties), or can only fail here because the objects
//! they take cannot be created (external memory). The debugger's data symbols (`cudbg*`) are listed too.

use crate::real::{Slot, c_name};

macro_rules! local {
    ($($name:ident),* $(,)?) => {
        /// The names.
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];

        static SLOTS: [Slot; NAMES.len()] = [$(Slot::new(c_name(concat!(stringify!($name), "\0")))),*];
    };
}

/// Addresses of those that the driver has.
pub fn addresses() -> impl Iterator<Item = usize> {
    SLOTS.iter().filter_map(|slot| Some(slot.address()?.get()))
}

local! {
    cuArray3DGetDescriptor, cuArray3DGetDescriptor_v2, cuArrayGetDescriptor, cuArrayGetDescriptor_v2,
    cuArrayGetMemoryRequirements, cuArrayGetSparseProperties, cuCheckpointProcessGetRestoreThreadId,
    cuCheckpointProcessGetState, cuCoredumpDeregisterCompleteCallback, cuCoredumpDeregisterStartCallback,
    cuCoredumpGetAttribute, cuCoredumpGetAttributeGlobal, cuCoredumpRegisterCompleteCallback,
    cuCoredumpRegisterStartCallback, cuCoredumpSetAttribute, cuCoredumpSetAttributeGlobal, cuCtxDisablePeerAccess,
    cuCtxFromGreenCtx, cuCtxGetApiVersion, cuCtxGetCacheConfig, cuCtxGetCurrent, cuCtxGetDevice, cuCtxGetDevice_v2,
    cuCtxGetDevResource, cuCtxGetExecAffinity, cuCtxGetFlags, cuCtxGetId, cuCtxGetLimit, cuCtxGetSharedMemConfig,
    cuCtxGetStreamPriorityRange, cuCtxSetFlags,
    cuCtxSetSharedMemConfig, cudbgApiAttach, cudbgApiClientPid, cudbgApiClientRevision, cudbgApiDetach, cudbgApiInit,
    cudbgAttachHandlerAvailable, cudbgDebuggerCapabilities, cudbgDebuggerInitialized, cudbgDetachSuspendedDevicesMask,
    cudbgEnableIntegratedMemcheck, cudbgEnableLaunchBlocking, cudbgEnablePreemptionDebugging, cudbgGetAPI,
    cudbgGetAPIVersion, cudbgInjectionPath, cudbgIpcFlag, cudbgMain, cudbgReportDriverApiError,
    cudbgReportDriverApiErrorFlags, cudbgReportDriverInternalError, cudbgReportedDriverApiErrorCode,
    cudbgReportedDriverApiErrorFuncNameAddr, cudbgReportedDriverApiErrorFuncNameSize,
    cudbgReportedDriverApiErrorNameAddr, cudbgReportedDriverApiErrorNameSize, cudbgReportedDriverApiErrorSource,
    cudbgReportedDriverApiErrorStringAddr, cudbgReportedDriverApiErrorStringSize, cudbgReportedDriverInternalErrorCode,
    cudbgResumeForAttachDetach, cudbgRpcEnabled, cudbgSessionId, cudbgUseExternalDebugger, cuDestroyExternalMemory,
    cuDestroyExternalSemaphore, cuDeviceComputeCapability, cuDeviceGet,
    cuDeviceGetByPCIBusId, cuDeviceGetCliqueCount, cuDeviceGetCliqueInfo, cuDeviceGetCount, cuDeviceGetDefaultMemPool,
    cuDeviceGetDevResource, cuDeviceGetExecAffinitySupport, cuDeviceGetFabricClusterUuid,     cuDeviceGetHostAtomicCapabilities, cuDeviceGetLuid, cuDeviceGetMemPool, cuDeviceGetName,
    cuDeviceGetNvSciSyncAttributes, cuDeviceGetP2PAtomicCapabilities, cuDeviceGetPCIBusId,
    cuDeviceGetProperties, cuDeviceGraphMemTrim, cuDeviceGetTexture1DLinearMaxWidth, cuDeviceGetUuid, cuDeviceGetUuid_v2,
    cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxSetFlags, cuDevicePrimaryCtxSetFlags_v2,
    cuDeviceRegisterAsyncNotification, cuDeviceSetGraphMemAttribute, cuDeviceSetMemPool, cuDeviceTotalMem, cuDeviceTotalMem_v2,
    cuDeviceUnregisterAsyncNotification, cuDevResourceGenerateDesc, cuDevSmResourceSplit, cuDevSmResourceSplitByCount,
    cuDriverGetVersion, cuExternalMemoryGetMappedBuffer, cuExternalMemoryGetMappedMipmappedArray,
    cuFlushGPUDirectRDMAWrites, cuFuncGetAttribute, cuFuncGetModule, cuFuncGetName, cuFuncGetParamCount,
    cuFuncGetParamInfo, cuFuncIsLoaded, cuGetErrorName, cuGetErrorString, cuGetExportTable, cuGLGetDevices,
    cuGLGetDevices_v2, cuGraphAddDependencies, cuGraphAddDependencies_v2, cuGraphAddEmptyNode,
    cuGraphAddEventRecordNode, cuGraphAddEventWaitNode, cuGraphAddHostNode, cuGraphAddKernelNode,
    cuGraphAddKernelNode_v2, cuGraphAddBatchMemOpNode, cuGraphBatchMemOpNodeGetParams, cuGraphBatchMemOpNodeSetParams, cuGraphChildGraphNodeGetGraph, cuGraphCreate, cuGraphDebugDotPrint,
    cuGraphEventRecordNodeGetEvent, cuGraphEventRecordNodeSetEvent,
    cuGraphEventWaitNodeGetEvent, cuGraphEventWaitNodeSetEvent, cuGraphExecGetFlags, cuGraphExecGetId,
    cuGraphExternalSemaphoresSignalNodeGetParams, cuGraphExternalSemaphoresWaitNodeGetParams, cuGraphGetEdges,
    cuGraphGetEdges_v2, cuGraphGetId, cuGraphGetNodes, cuGraphGetRootNodes, cuGraphHostNodeGetParams,
    cuGraphHostNodeSetParams, cuGraphKernelNodeCopyAttributes, cuGraphKernelNodeGetAttribute,
    cuGraphKernelNodeGetParams, cuGraphKernelNodeGetParams_v2, cuGraphKernelNodeSetAttribute,
    cuGraphKernelNodeSetParams, cuGraphKernelNodeSetParams_v2, cuGraphMemcpyNodeGetParams,
    cuGraphMemsetNodeGetParams,     cuGraphNodeFindInClone, cuGraphNodeGetContainingGraph, cuGraphNodeGetDependencies, cuGraphNodeGetDependencies_v2,
    cuGraphNodeGetDependentNodes, cuGraphNodeGetDependentNodes_v2, cuGraphNodeGetEnabled, cuGraphNodeGetLocalId,
    cuGraphNodeGetParams, cuGraphNodeGetToolsId, cuGraphReleaseUserObject,
    cuGraphRemoveDependencies, cuGraphRemoveDependencies_v2, cuGreenCtxDestroy,
    cuGreenCtxGetDevResource, cuGreenCtxGetId, cuKernelGetAttribute, cuKernelGetLibrary,
    cuKernelGetName, cuKernelGetParamCount, cuKernelGetParamInfo, cuLibraryGetKernelCount, cuLinkAddData,
    cuLinkAddData_v2, cuLinkAddFile, cuLinkAddFile_v2, cuLinkComplete, cuLinkCreate, cuLinkCreate_v2, cuLinkDestroy,
    cuLogsCurrent, cuLogsDumpToFile, cuLogsDumpToMemory, cuLogsRegisterCallback, cuLogsUnregisterCallback,
    cuMemGetAccess, cuMemGetAllocationGranularity, cuMemGetAttribute, cuMemGetAttribute_v2,
    cuMemGetDefaultMemPool, cuMemGetLocationInfo, cuMemGetMemPool, cuMemPoolDestroy, cuMemPoolGetAccess,
    cuMemPoolSetAccess,
    cuMemRangeGetAttribute, cuMemRangeGetAttributes,
    cuMemSetMemPool, cuMipmappedArrayGetMemoryRequirements,
    cuMipmappedArrayGetSparseProperties, cuModuleGetFunctionCount, cuModuleGetLoadingMode, cuMulticastGetGranularity,
    cuOccupancyAvailableDynamicSMemPerBlock, cuOccupancyMaxActiveBlocksPerMultiprocessor,
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, cuOccupancyMaxActiveClusters,
    cuOccupancyMaxPotentialBlockSize, cuOccupancyMaxPotentialBlockSizeWithFlags, cuOccupancyMaxPotentialClusterSize,
    cuProfilerInitialize, cuProfilerStart, cuProfilerStop, cuStreamGetAttribute, cuStreamGetAttribute_ptsz,
    cuStreamGetCaptureInfo, cuStreamGetCaptureInfo_ptsz, cuStreamGetCaptureInfo_v2, cuStreamGetCaptureInfo_v2_ptsz,
    cuStreamGetCaptureInfo_v3, cuStreamGetCaptureInfo_v3_ptsz, cuStreamGetCtx, cuStreamGetCtx_ptsz, cuStreamGetCtx_v2,
    cuStreamGetCtx_v2_ptsz, cuStreamGetDevice, cuStreamGetDevice_ptsz, cuStreamGetDevResource, cuStreamGetDevResource_ptsz, cuStreamGetFlags,
    cuStreamGetFlags_ptsz, cuStreamGetId, cuStreamGetId_ptsz, cuStreamGetPriority, cuStreamGetPriority_ptsz,
    cuStreamIsCapturing, cuStreamIsCapturing_ptsz, cuStreamUpdateCaptureDependencies,
    cuStreamUpdateCaptureDependencies_ptsz, cuStreamUpdateCaptureDependencies_v2,
    cuStreamUpdateCaptureDependencies_v2_ptsz, cuSurfRefGetArray,
    cuTensorMapEncodeIm2col, cuTensorMapEncodeIm2colWide, cuTensorMapEncodeTiled, cuTensorMapReplaceAddress,

    cuTexRefGetAddress, cuTexRefGetAddressMode, cuTexRefGetArray,
    cuTexRefGetBorderColor, cuTexRefGetFilterMode, cuTexRefGetFlags, cuTexRefGetFormat, cuTexRefGetMaxAnisotropy,
    cuTexRefGetMipmapFilterMode, cuTexRefGetMipmapLevelBias, cuTexRefGetMipmapLevelClamp, cuTexRefGetMipmappedArray,
    cuThreadExchangeStreamCaptureMode, cuUserObjectCreate, cuUserObjectRelease, cuUserObjectRetain, cuVDPAUGetDevice,
}
