//! Kernel launches.
//!
//! The shim has packed the parameters as the kernel reads them, so they are passed on as one buffer. What it validated is
//! validated again by the driver.

use std::ffi::c_void;
use std::sync::atomic::Ordering::Relaxed;

use lightos_protocol::record::{EVENT_ATTRIBUTES, LAUNCH_COOPERATIVE, LaunchView, MAX_LAUNCH_ATTRIBUTES};

use super::Executor;
use super::driver::{CuError, check, sys};

/// `CU_LAUNCH_PARAM_*`: the `extra` list that passes parameters as one buffer.
pub(super) struct ParamBuffer {
    bytes: usize,
    list: [*mut c_void; 5],
}

impl ParamBuffer {
    pub(super) const fn new() -> Self {
        Self { bytes: 0, list: [std::ptr::null_mut(); 5] }
    }

    /// The list for `params`, valid while both live and stay in place; NULL for a kernel without parameters.
    pub(super) fn fill(&mut self, params: &[u8]) -> *mut *mut c_void {
        if params.is_empty() {
            return std::ptr::null_mut();
        }
        self.bytes = params.len();
        self.list = [
            std::ptr::without_provenance_mut(sys::CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT as usize),
            params.as_ptr().cast_mut().cast(),
            std::ptr::without_provenance_mut(sys::CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT as usize),
            (&raw mut self.bytes).cast(),
            std::ptr::null_mut(),
        ];
        self.list.as_mut_ptr()
    }
}

/// The C layout of `CUlaunchAttribute`, whose id stays a number: the program chose it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Attribute {
    id: u32,
    pad: u32,
    value: [u8; 64],
}

const _: () = assert!(size_of::<Attribute>() == size_of::<sys::CUlaunchAttribute>());

impl Executor {
    /// Launches a kernel.
    pub(crate) fn launch(&mut self, view: &LaunchView<'_>) -> Result<(), CuError> {
        self.start(view)?;
        self.pages.counters().traffic().launches.fetch_add(1, Relaxed);
        Ok(())
    }

    fn start(&mut self, view: &LaunchView<'_>) -> Result<(), CuError> {
        let launch = &view.launch;
        let function = self.modules.function(launch.function)?;
        let stream = self.streams.raw(launch.stream)?;
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        let mut buffer = ParamBuffer::new();
        let extra = buffer.fill(view.params);
        let none = std::ptr::null_mut();
        if launch.flags == 0 {
            // SAFETY: function and stream are live; `extra` describes a buffer of exactly the size stated, valid for the call.
            return check(unsafe {
                sys::cuLaunchKernel(
                    function,
                    gx,
                    gy,
                    gz,
                    bx,
                    by,
                    bz,
                    launch.shared_bytes,
                    stream,
                    none,
                    extra,
                )
            });
        }
        let mut attributes = [Attribute { id: 0, pad: 0, value: [0; 64] }; MAX_LAUNCH_ATTRIBUTES + 1];
        let mut count = 0;
        for attribute in view.attributes() {
            let mut value = attribute.value;
            if EVENT_ATTRIBUTES.contains(&attribute.id)
                && let Some(handle) = value.first_chunk_mut::<8>()
            {
                let event = self.events.of_graph(u64::from_ne_bytes(*handle))?;
                *handle = (event.expose_provenance() as u64).to_ne_bytes();
            }
            attributes[count] = Attribute { id: attribute.id, pad: 0, value };
            count += 1;
        }
        if launch.flags & LAUNCH_COOPERATIVE != 0 {
            attributes[count].id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE as u32;
            attributes[count].value[0] = 1;
            count += 1;
        }
        let config = sys::CUlaunchConfig {
            gridDimX: gx,
            gridDimY: gy,
            gridDimZ: gz,
            blockDimX: bx,
            blockDimY: by,
            blockDimZ: bz,
            sharedMemBytes: launch.shared_bytes,
            hStream: stream,
            attrs: attributes.as_mut_ptr().cast(),
            numAttrs: count as u32,
        };
        // SAFETY: as above; `attributes` has the C layout and `count` entries, and events among them are
        // ours; the shim lets no attribute with another handle or a pointer pass (a hostile one harms its own process).
        check(unsafe { sys::cuLaunchKernelEx(&config, function, none, extra) })
    }
}
