//! Launches: validation with hardware's codes, the copied parameter buffer, and the run on the machine.

use std::ffi::c_void;
use std::sync::Arc;

use lightos_softgpu_engine::check;
use lightos_softgpu_engine::exec::{Environment, Fault, Grid};

use crate::abi::{AttributeValue, LaunchAttribute};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::event;
use crate::function::{self, Function};
use crate::space::SPACE;
use crate::work::UserData;

/// `CUlaunchAttributeID`.
pub const COOPERATIVE: u32 = 2;
const CLUSTER_DIMENSION: u32 = 4;
const PROGRAMMATIC_EVENT: u32 = 7;
const PREFERRED_CLUSTER_DIMENSION: u32 = 11;
const LAUNCH_COMPLETION_EVENT: u32 = 12;
const LAST_ATTRIBUTE: u32 = 16;

/// Most bytes of parameters that a launch may carry.
pub const MAX_PARAM_BYTES: usize = 32_764;
/// Keys of the `extra` array.
const EXTRA_END: usize = 0;
const EXTRA_BUFFER: usize = 1;
const EXTRA_BYTES: usize = 2;

/// What a launch asks for, before it is checked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A `CUfunction` or a `CUkernel`.
    pub function: u64,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub params: *mut *mut c_void,
    pub extra: *mut *mut c_void,
    pub attributes: &'a [LaunchAttribute],
}

/// A checked launch with its own copy of the parameters.
#[derive(Debug)]
pub struct KernelCall {
    pub function: Arc<Function>,
    /// The handle that the program used.
    pub handle: u64,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub attributes: Vec<LaunchAttribute>,
    params: Box<[u8]>,
    /// One pointer per parameter into `params`, for node queries.
    pointers: Box<[UserData]>,
    /// Whether the parameters came as a buffer.
    from_buffer: bool,
}

/// Checks a launch and copies its parameters.
///
/// # Safety
/// `params` and `extra` are as CUDA documents: null, or one readable pointer per parameter, or the terminated list.
pub unsafe fn prepare(request: &Request) -> Result<KernelCall> {
    let function = function::find(request.function)?;
    check_shape(&function, request)?;
    // SAFETY: this function's contract.
    let mut params = unsafe { pack(&function, request.params, request.extra) }?.into_boxed_slice();
    let base = params.as_mut_ptr();
    // SAFETY: the machine's layout puts every parameter inside the buffer.
    let pointer = |offset: usize| UserData(unsafe { base.add(offset) }.cast());
    let pointers = function.info.params.iter().map(|param| pointer(param.offset)).collect();
    let call = KernelCall {
        function,
        handle: request.function,
        grid: request.grid,
        block: request.block,
        shared_bytes: request.shared_bytes,
        attributes: request.attributes.to_vec(),
        params,
        pointers,
        from_buffer: !request.extra.is_null(),
    };
    if call.is_cooperative() {
        call.check_cooperative()?;
    }
    Ok(call)
}

fn check_shape(function: &Function, request: &Request) -> Result {
    let device = function.device;
    let within = |sizes: [u32; 3], first: i32| -> Result<bool> {
        let limits = [device.attribute(first)?, device.attribute(first + 1)?, device.attribute(first + 2)?];
        Ok(sizes.iter().zip(limits).all(|(size, limit)| *size > 0 && *size <= limit as u32))
    };
    if !within(request.grid, 5)? || !within(request.block, 2)? {
        return Err(Error::INVALID_VALUE);
    }
    let threads: u32 = request.block.iter().product();
    if threads > device.attribute(1)? as u32 || threads > function.info.max_threads_per_block {
        return Err(Error::INVALID_VALUE);
    }
    if function.info.required_block.is_some_and(|required| required != request.block) {
        return Err(Error::INVALID_VALUE);
    }
    if request.shared_bytes > function.dynamic_shared_limit() {
        // Of a cooperative launch no block would be resident, and that is what hardware says.
        let is_cooperative =
            |attribute: &LaunchAttribute| attribute.id == COOPERATIVE && attribute.value.words()[0] != 0;
        return Err(match request.attributes.iter().any(is_cooperative) {
            true => Error::COOPERATIVE_LAUNCH_TOO_LARGE,
            false => Error::INVALID_VALUE,
        });
    }
    for attribute in request.attributes {
        match (attribute.id, attribute.value.words()) {
            // One block per cluster is a launch without clusters.
            (CLUSTER_DIMENSION | PREFERRED_CLUSTER_DIMENSION, [1, 1, 1] | [0, 0, 0]) => {}
            (CLUSTER_DIMENSION | PREFERRED_CLUSTER_DIMENSION, _) => return Err(Error::NOT_SUPPORTED),
            (PROGRAMMATIC_EVENT | LAUNCH_COMPLETION_EVENT, _) => check_event(attribute.value.0[0])?,
            (0..=LAST_ATTRIBUTE, _) => {}
            _ => return Err(Error::INVALID_VALUE),
        }
    }
    Ok(())
}

/// An event that a launch records: one without time, of this process alone.
fn check_event(handle: u64) -> Result {
    let event = event::find(handle)?;
    let fits = event.flags & (event::DISABLE_TIMING | event::INTERPROCESS) == event::DISABLE_TIMING;
    if fits { Ok(()) } else { Err(Error::NOT_SUPPORTED) }
}

unsafe fn pack(function: &Function, params: *mut *mut c_void, extra: *mut *mut c_void) -> Result<Vec<u8>> {
    let info = &function.info;
    let mut buffer = vec![0u8; info.param_bytes];
    // SAFETY: the caller passed the arrays as CUDA documents; each copy stays inside `buffer` because the machine laid out
    // the parameters in `param_bytes`.
    unsafe {
        match (params.is_null(), extra.is_null()) {
            (true, true) if info.params.is_empty() => {}
            (true, true) | (false, false) => return Err(Error::INVALID_VALUE),
            (false, true) => {
                for (i, param) in info.params.iter().enumerate() {
                    let from = params.add(i).read_unaligned().cast::<u8>();
                    if from.is_null() {
                        return Err(Error::INVALID_VALUE);
                    }
                    from.copy_to_nonoverlapping(
                        buffer[param.offset..][..param.size].as_mut_ptr(),
                        param.size,
                    );
                }
            }
            (true, false) => {
                // As hardware has it: a short buffer is taken, and the kernel reads what was there before (here zeros).
                let (from, bytes) = parse_extra(extra)?;
                let most = info.params.last().map_or(0, |last| last.offset + last.size);
                if bytes > MAX_PARAM_BYTES || (bytes > 0 && from.is_null()) {
                    return Err(Error::INVALID_VALUE);
                }
                if bytes > most {
                    return Err(Error::LAUNCH_OUT_OF_RESOURCES);
                }
                from.copy_to_nonoverlapping(buffer.as_mut_ptr(), bytes);
            }
        }
    }
    Ok(buffer)
}

unsafe fn parse_extra(extra: *mut *mut c_void) -> Result<(*const u8, usize)> {
    let (mut from, mut bytes) = (std::ptr::null::<u8>(), 0usize);
    let mut at = extra;
    loop {
        // SAFETY: the list is made of key and value pairs and ends with the end key, as CUDA documents.
        unsafe {
            match at.read_unaligned() as usize {
                EXTRA_END => return Ok((from, bytes)),
                EXTRA_BUFFER => from = at.add(1).read_unaligned().cast(),
                EXTRA_BYTES => {
                    let size = at.add(1).read_unaligned().cast::<usize>();
                    bytes = if size.is_null() { 0 } else { size.read_unaligned() };
                }
                _ => return Err(Error::INVALID_VALUE),
            }
            at = at.add(2);
        }
    }
}

impl KernelCall {
    pub fn attribute(&self, id: u32) -> Option<AttributeValue> {
        self.attributes.iter().rev().find(|attribute| attribute.id == id).map(|attribute| attribute.value)
    }

    pub fn is_cooperative(&self) -> bool {
        self.attribute(COOPERATIVE).is_some_and(|value| value.words()[0] != 0)
    }

    /// The events that the launch records.
    pub fn events(&self) -> impl Iterator<Item = u64> {
        let records = |attribute: &&LaunchAttribute| {
            matches!(attribute.id, PROGRAMMATIC_EVENT | LAUNCH_COMPLETION_EVENT)
        };
        self.attributes.iter().filter(records).map(|attribute| attribute.value.0[0])
    }

    /// The same launch with one attribute set. In a graph, edges stand for the events of launches.
    pub fn with_attribute(&self, attribute: LaunchAttribute) -> Result<KernelCall> {
        if matches!(attribute.id, PROGRAMMATIC_EVENT | LAUNCH_COMPLETION_EVENT) {
            return Err(Error::INVALID_VALUE);
        }
        let mut params = self.params.clone();
        let base = params.as_mut_ptr();
        // SAFETY: offsets of parameters lie inside the buffer.
        let pointer = |offset: usize| UserData(unsafe { base.add(offset) }.cast());
        let pointers = self.function.info.params.iter().map(|param| pointer(param.offset)).collect();
        let kept = self.attributes.iter().copied().filter(|known| known.id != attribute.id);
        let attributes: Vec<LaunchAttribute> = kept.chain([attribute]).collect();
        let request = Request {
            function: self.handle,
            grid: self.grid,
            block: self.block,
            shared_bytes: self.shared_bytes,
            params: std::ptr::null_mut(),
            extra: std::ptr::null_mut(),
            attributes: &attributes,
        };
        check_shape(&self.function, &request)?;
        let Request { function: handle, grid, block, shared_bytes, .. } = request;
        let call = KernelCall {
            function: self.function.clone(),
            handle,
            grid,
            block,
            shared_bytes,
            attributes,
            params,
            pointers,
            from_buffer: self.from_buffer,
        };
        call.into_node()
    }

    /// The launch as a node: hardware takes no buffer of parameters for a cooperative one.
    pub fn into_node(self) -> Result<KernelCall> {
        if self.from_buffer && self.is_cooperative() { Err(Error::INVALID_VALUE) } else { Ok(self) }
    }

    /// An array of one pointer per parameter, valid as long as this call lives.
    pub fn param_pointers(&self) -> *mut *mut c_void {
        if self.pointers.is_empty() {
            std::ptr::null_mut()
        } else {
            self.pointers.as_ptr() as *mut *mut c_void
        }
    }

    /// A cooperative grid must be resident as a whole.
    fn check_cooperative(&self) -> Result {
        let threads = self.block.iter().product();
        let per_sm = self.function.blocks_per_sm(threads, u64::from(self.shared_bytes))?;
        let room = u64::from(per_sm) * u64::from(self.function.device.profile().sm_count);
        let blocks: u64 = self.grid.iter().map(|n| u64::from(*n)).product();
        if blocks > room { Err(Error::COOPERATIVE_LAUNCH_TOO_LARGE) } else { Ok(()) }
    }

    /// Runs the grid to its end; the error is the device's, and sticky.
    pub fn run(&self, context: &Context) -> Result {
        let grid = Grid {
            grid: self.grid,
            block: self.block,
            dynamic_shared_bytes: self.shared_bytes,
            params: &self.params,
            cooperative: self.is_cooperative(),
        };
        let environment = Environment {
            memory: &SPACE,
            sm_count: context.device.profile().sm_count,
            cancel: &context.cancel,
            print: &|text| context.print(text),
            check: check::get(),
        };
        match self.function.module.program.run(&self.function.info.name, &grid, &environment) {
            Ok(_) | Err(Fault::Cancelled) => Ok(()),
            Err(fault) => {
                explain(&fault);
                Err(code(&fault))
            }
        }
    }
}

/// The `CUresult` that hardware gives for a fault.
fn code(fault: &Fault) -> Error {
    match fault {
        Fault::IllegalAddress { .. } | Fault::InvalidObject { .. } => Error::ILLEGAL_ADDRESS,
        Fault::MisalignedAddress { .. } => Error::MISALIGNED_ADDRESS,
        Fault::IllegalInstruction { .. } => Error::ILLEGAL_INSTRUCTION,
        Fault::Trap { .. } | Fault::Cancelled => Error::LAUNCH_FAILED,
        Fault::Assert { .. } => Error::ASSERT,
        Fault::StackOverflow { .. } => Error::HARDWARE_STACK_ERROR,
        Fault::Deadlock { .. } => Error::LAUNCH_TIMEOUT,
    }
}

/// Device assertions are reported on standard error, as hardware's driver does; other faults where `SOFTGPU_VERBOSE` is set,
/// and among the reports of a checked process.
fn explain(fault: &Fault) {
    match fault {
        Fault::Assert { message, .. } => eprintln!("{message}"),
        _ if std::env::var_os("SOFTGPU_VERBOSE").is_some() => eprintln!("softgpu: {fault}"),
        _ => {
            if let Some(checker) = check::get() {
                checker.say(&format!("softgpu: {fault}"));
            }
        }
    }
}
