//! What a hook decided: the call is done, the real driver shall run it, or it failed.

use crate::result::CuResult;

/// The outcome of one hooked call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sidecar has (or will have, in program order) done it; the program sees `CUDA_SUCCESS`.
    Done,
    /// The real driver runs the call with the same arguments, for a counted reason.
    PassThrough(Reason),
    /// The program sees this error; the real driver is not asked.
    Fail(CuResult),
    /// LightOS does not carry this call: the program sees `CUDA_ERROR_NOT_SUPPORTED`, for a counted reason.
    Refuse(Reason),
}

impl From<Result<(), CuResult>> for Outcome {
    fn from(result: Result<(), CuResult>) -> Self {
        match result {
            Ok(()) | Err(CuResult::SUCCESS) => Self::Done,
            Err(error) => Self::Fail(error),
        }
    }
}

impl From<CuResult> for Outcome {
    fn from(result: CuResult) -> Self {
        result.ok().into()
    }
}

/// For ops that end early with `?` on either an error or a decision to pass the call on.
impl From<Result<Outcome, CuResult>> for Outcome {
    fn from(result: Result<Outcome, CuResult>) -> Self {
        result.unwrap_or_else(Self::Fail)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why a call was passed to the local driver or refused. Each is a counter in the tenant's report.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Names in counter order, announced to the sidecar in the handshake.
            pub const NAMES: &[&str] = &[$(stringify!($name),)*];
        }
    };
}

reasons! {
    /// The local driver holds the true answer (queries, versions, objects without device state).
    LocalQuery,
    /// A hook panicked before it had done anything; the local driver ran the call.
    Panicked,
    /// The call belongs to a stream capture, which lives in the local driver.
    Capturing,
    /// A function of a newer driver that this build does not know or not carry.
    UnknownFunction,
    /// The argument is certainly invalid: the local driver names the error.
    InvalidArgument,
    /// A device other than the one that the session governs.
    OtherDevice,
    /// Sparse arrays, whose memory is mapped later, and arrays that LightOS has not seen made.
    Arrays,
    /// Interoperation with OpenGL, EGL, VDPAU, external memory or external semaphores.
    Interop,
    /// Memory shared with processes outside of LightOS by CUDA IPC handles, memory pools shared by handles, memory as a DMA buffer.
    Ipc,
    /// Managed (unified) memory, served by pinned memory of the host, whose pages do not migrate.
    ManagedMemory,
    /// An image that declares managed variables: the driver of the process that loads it chooses their address.
    ManagedVariables,
    /// Atomic reductions in batched memory operations, decompression.
    Batch,
    /// Green contexts and device resource splits.
    GreenContext,
    /// Multicast objects.
    Multicast,
    /// Peer access between devices, or what would need it.
    Peer,
    /// A checkpoint of the process would miss the memory that the sidecar holds.
    Checkpoint,
    /// Entry points with 32-bit addresses and sizes, replaced by CUDA 3.2.
    Legacy,
    /// A graph operation that has no counterpart in the executor yet.
    GraphOperation,
    /// A memory pool operation that the sidecar's allocator does not offer.
    PoolOperation,
    /// Physical memory of a location that the executor cannot share, or with a handle that is no file descriptor.
    VmmKind,
    /// A function from an image that the executor was not given.
    UnknownOrigin,
    /// The driver does not tell how a kernel's parameters lie (drivers before 12.4).
    ParameterLayout,
    /// A launch attribute that holds a graph node.
    LaunchAttribute,
    /// A graph node that copies between an array and host memory which is not pinned, or that changes from pinned to other memory.
    PageableInGraph,
    /// A graph node of a kind that the executor does not build (conditional, external semaphore).
    GraphNodeKind,
    /// A graph that is to be launched from the device.
    DeviceGraphLaunch,
    /// A global of the executor has an address at which the program has memory of its own.
    GlobalOverlap,
    /// Access of the device to registered memory that cannot become shared where it lies (of a file, the heap, not at the start of a page);
    /// copies of it are carried.
    HostRegister,
    /// CUPTI was asked for what the device does, which it sees in the program's own process only.
    Profiler,
}

const _: () = assert!(Reason::NAMES.len() <= 256, "the reason counters hold 256 rows");
