//! Functions that LightOS does not carry: answered `CUDA_ERROR_NOT_SUPPORTED` with a counted reason instead of silently
//! running on the wrong side. Without a session they run natively.
//!
//! No signature is needed: the entry point is a trampoline that either returns the error or jumps to the real function with
//! all arguments in place.

use crate::{
    dispatch,
    guard::Guard,
    hooks::{Area, Hook, base, unknown},
    outcome::Reason,
    real::{self, c_name},
    result::CuResult,
    session,
    trampoline::{self, Verdict},
};
use lightos_protocol::pages::Outcome as Column;
use std::{ffi::c_void, num::NonZeroUsize};

macro_rules! refuse {
    ($($reason:ident: $($name:ident)*;)*) => {
        #[allow(non_camel_case_types, clippy::enum_variant_names)]
        enum Row { $($($name,)*)* }

        /// Names in row order.
        pub const NAMES: &[&str] = &[$($(stringify!($name),)*)*];

        /// The hooks, all refusals.
        pub static HOOKS: [Hook; NAMES.len()] = [$($(
            Hook::new(
                c_name(concat!(stringify!($name), "\0")),
                base(Area::refuse) + Row::$name as usize,
                entries::$name as *const c_void,
            ),
        )*)*];

        static REASONS: [Reason; NAMES.len()] = [$($({ let _ = Row::$name; Reason::$reason },)*)*];

        #[allow(non_snake_case, clippy::missing_safety_doc)]
        mod entries {
            use super::{Row, trampoline};
            $($(trampoline::entry!($name, Row::$name as u32, refuse_or_jump);)*)*
        }
    };
}

/// Decides one call of a refused or unknown function: `target` is the real function where there is no session, else zero.
pub extern "C" fn refusal_verdict(row: u32) -> Verdict {
    let answer = |result: CuResult| Verdict { answer: result.0 as usize, target: 0 };
    let hook = HOOKS.get(row as usize);
    let reason = REASONS.get(row as usize).copied().unwrap_or(Reason::UnknownFunction);
    let is_met = || hook.is_some_and(|hook| dispatch::meets_refusal(reason, hook.slot.name()));
    if let (Some(session), Some(_guard)) = (session::session(), Guard::enter())
        && !is_met()
    {
        let counters = session.pages().counters();
        match hook {
            Some(hook) => session.count(hook.row, Column::Refused),
            None => unknown::named(row, |index, name| counters.refuse_unknown(index, name)),
        }
        counters.count_reason(reason as usize);
        return answer(CuResult::NOT_SUPPORTED);
    }
    let real = hook.map_or_else(|| unknown::real_of(row), |hook| hook.slot.address().map(NonZeroUsize::get));
    real.map_or_else(|| answer(real::absent()), |target| Verdict { answer: 0, target })
}

refuse! {
    Interop:
        cuEGLApiInit cuEGLStreamConsumerAcquireFrame cuEGLStreamConsumerConnect cuEGLStreamConsumerConnectWithFlags
        cuEGLStreamConsumerDisconnect cuEGLStreamConsumerReleaseFrame cuEGLStreamProducerConnect
        cuEGLStreamProducerDisconnect cuEGLStreamProducerPresentFrame cuEGLStreamProducerReturnFrame cuGLCtxCreate
        cuGLCtxCreate_v2 cuGLInit cuGLMapBufferObject cuGLMapBufferObjectAsync cuGLMapBufferObjectAsync_v2
        cuGLMapBufferObjectAsync_v2_ptsz cuGLMapBufferObject_v2 cuGLMapBufferObject_v2_ptds cuGLRegisterBufferObject
        cuGLSetBufferObjectMapFlags cuGLUnmapBufferObject cuGLUnmapBufferObjectAsync cuGLUnregisterBufferObject
        cuGraphAddExternalSemaphoresSignalNode cuGraphAddExternalSemaphoresWaitNode
        cuGraphExecExternalSemaphoresSignalNodeSetParams cuGraphExecExternalSemaphoresWaitNodeSetParams
        cuGraphExternalSemaphoresSignalNodeSetParams cuGraphExternalSemaphoresWaitNodeSetParams
        cuEventCreateFromEGLSync cuGraphicsEGLRegisterImage cuGraphicsGLRegisterBuffer cuGraphicsGLRegisterImage
        cuGraphicsMapResources cuGraphicsMapResources_ptsz cuGraphicsResourceGetMappedEglFrame
        cuGraphicsResourceGetMappedMipmappedArray cuGraphicsResourceGetMappedPointer
        cuGraphicsResourceGetMappedPointer_v2 cuGraphicsResourceSetMapFlags cuGraphicsResourceSetMapFlags_v2
        cuGraphicsSubResourceGetMappedArray cuGraphicsUnmapResources cuGraphicsUnmapResources_ptsz
        cuGraphicsUnregisterResource cuGraphicsVDPAURegisterOutputSurface cuGraphicsVDPAURegisterVideoSurface
        cuImportExternalMemory cuImportExternalSemaphore cuSignalExternalSemaphoresAsync
        cuSignalExternalSemaphoresAsync_ptsz cuVDPAUCtxCreate cuVDPAUCtxCreate_v2 cuWaitExternalSemaphoresAsync
        cuWaitExternalSemaphoresAsync_ptsz;
    Arrays:
        cuMemMapArrayAsync cuMemMapArrayAsync_ptsz;
    Ipc:
        cuMemGetHandleForAddressRange cuMemPoolExportPointer cuMemPoolExportToShareableHandle
        cuMemPoolImportFromShareableHandle cuMemPoolImportPointer;
    Batch:

        cuMemBatchDecompressAsync cuMemBatchDecompressAsync_ptsz;
    GreenContext:
        cuCtxRecordEvent cuCtxWaitEvent cuGreenCtxCreate cuGreenCtxRecordEvent cuGreenCtxStreamCreate
        cuGreenCtxWaitEvent;
    Multicast:
        cuMulticastAddDevice cuMulticastBindAddr cuMulticastBindMem cuMulticastCreate cuMulticastUnbind;
    UnknownFunction:
        cuLogicalEndpointAddDevice cuLogicalEndpointBindAddr
        cuLogicalEndpointBindMem cuLogicalEndpointCreate cuLogicalEndpointDestroy cuLogicalEndpointExport
        cuLogicalEndpointGetLimits cuLogicalEndpointIdRelease cuLogicalEndpointIdReserve cuLogicalEndpointImport
        cuLogicalEndpointQuery cuLogicalEndpointUnbind cuMulticastBindAddr_v2 cuMulticastBindMem_v2
        cuStreamBeginCaptureToCig cuStreamBeginCaptureToCig_ptsz
        cuStreamEndCaptureToCig cuStreamEndCaptureToCig_ptsz;
    Checkpoint:
        cuCheckpointProcessCheckpoint cuCheckpointProcessLock cuCheckpointProcessRestore cuCheckpointProcessUnlock;
    Legacy:
        cuArray3DCreate cuArrayCreate cuMemcpyAtoA cuMemcpyAtoD cuMemcpyAtoH cuMemcpyAtoHAsync cuMemcpyDtoA cuMemcpyHtoA
        cuMemcpyHtoAAsync cuParamSetTexRef cuTexRefSetAddress cuTexRefSetAddress2D cuTexRefSetAddress2D_v2

        cuMemAlloc cuMemAllocHost cuMemAllocPitch cuMemcpy2D cuMemcpy2DAsync
        cuMemcpy2DUnaligned cuMemcpy3D cuMemcpy3DAsync cuMemcpyDtoD cuMemcpyDtoDAsync cuMemcpyDtoH cuMemcpyDtoHAsync
        cuMemcpyHtoD cuMemcpyHtoDAsync cuMemFree cuMemGetAddressRange cuMemGetInfo cuMemHostGetDevicePointer
        cuMemsetD16 cuMemsetD2D16 cuMemsetD2D32 cuMemsetD2D8 cuMemsetD32 cuMemsetD8 cuModuleGetGlobal;
    GraphOperation:
        cuGraphConditionalHandleCreate;
}
