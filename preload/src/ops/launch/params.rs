//! Kernel parameters: from the program's pointers or buffer to the bytes that the kernel reads.

use super::bad_parameters;
use crate::ops::function::{Layout, Param};
use crate::result::CuResult;
use lightos_protocol::record::MAX_PARAM_BYTES;
use std::ffi::c_void;

/// `CU_LAUNCH_PARAM_END`, `_BUFFER_POINTER`, `_BUFFER_SIZE`.
const END: usize = 0;
const BUFFER_POINTER: usize = 1;
const BUFFER_SIZE: usize = 2;
/// Buffers up to this size are on the stack of an ordinary launch; larger ones take a detour with a larger frame.
const SMALL_BYTES: usize = 1024;

/// `kernelParams` and `extra` of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    pointers: *const *const c_void,
    extra: *const *const c_void,
}

impl Arguments {
    /// # Safety
    /// As the launch functions document: `pointers` is null or has a pointer for each parameter, `extra` is null or a list that ends
    /// with `CU_LAUNCH_PARAM_END`; all of it is readable until the call returns.
    pub unsafe fn new(pointers: *mut *mut c_void, extra: *mut *mut c_void) -> Self {
        Self { pointers: pointers.cast_const().cast(), extra: extra.cast_const().cast() }
    }
}

/// Calls `run` with the parameter bytes.
///
/// # Errors
/// `INVALID_VALUE` for missing parameters and malformed lists; what `run` returns.
#[inline]
pub fn with_packed(
    layout: &Layout,
    arguments: Arguments,
    run: impl FnOnce(&[u8]) -> Result<(), CuResult>,
) -> Result<(), CuResult> {
    let bytes = layout.bytes as usize;
    match (arguments.pointers.is_null(), arguments.extra.is_null()) {
        (false, false) => bad_parameters(),
        // SAFETY: not null, so a list as `Arguments::new` was promised.
        (true, false) => run(unsafe { buffer(arguments.extra)? }),
        _ if bytes == 0 => run(&[]),
        (true, true) => bad_parameters(),
        (false, true) if bytes <= SMALL_BYTES => pack::<SMALL_BYTES>(layout, arguments, run),
        (false, true) => pack_large(layout, arguments, run),
    }
}

#[cold]
#[inline(never)]
fn pack_large(
    layout: &Layout,
    arguments: Arguments,
    run: impl FnOnce(&[u8]) -> Result<(), CuResult>,
) -> Result<(), CuResult> {
    pack::<{ MAX_PARAM_BYTES.next_multiple_of(8) }>(layout, arguments, run)
}

#[inline]
fn pack<const N: usize>(
    layout: &Layout,
    arguments: Arguments,
    run: impl FnOnce(&[u8]) -> Result<(), CuResult>,
) -> Result<(), CuResult> {
    let mut buffer = [std::mem::MaybeUninit::<u8>::uninit(); N];
    let Some(buffer) = buffer.get_mut(..layout.bytes as usize) else { return bad_parameters() };
    // Padding between parameters must not carry the program's stack to the executor.
    let buffer = zeroed(buffer);
    for (index, &Param { offset, bytes }) in layout.params.iter().enumerate() {
        // SAFETY: `pointers` has an entry for each parameter, as `Arguments::new` was promised.
        let source = unsafe { arguments.pointers.add(index).read_unaligned() };
        if source.is_null() {
            return bad_parameters();
        }
        // SAFETY: not null, so it points at the parameter's value, whose size is the driver's own statement.
        let source = unsafe { std::slice::from_raw_parts(source.cast::<u8>(), bytes as usize) };
        buffer[offset as usize..][..bytes as usize].copy_from_slice(source);
    }
    run(buffer)
}

fn zeroed(buffer: &mut [std::mem::MaybeUninit<u8>]) -> &mut [u8] {
    buffer.fill(std::mem::MaybeUninit::new(0));
    // SAFETY: every byte was just initialised.
    unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [u8]) }
}

/// The buffer that an `extra` list names, of the size that it states: what the driver says of one that is too short or too long is
/// the executor's driver's to say.
///
/// # Safety
/// `list` is as `Arguments::new` was promised.
unsafe fn buffer<'a>(list: *const *const c_void) -> Result<&'a [u8], CuResult> {
    let (mut data, mut size) = (std::ptr::null::<u8>(), None);
    let mut at = list;
    loop {
        // SAFETY: the list ends with END, and each other key has a value after it.
        let (key, value) = unsafe {
            match (*at).addr() {
                END => break,
                key => (key, *at.add(1)),
            }
        };
        match key {
            BUFFER_POINTER => data = value.cast(),
            BUFFER_SIZE if value.is_null() => return bad_parameters(),
            // SAFETY: not null, so it points at the size.
            BUFFER_SIZE => size = Some(unsafe { value.cast::<usize>().read_unaligned() }),
            _ => return bad_parameters(),
        }
        // SAFETY: as above.
        at = unsafe { at.add(2) };
    }
    match size {
        None | Some(0) => Ok(&[]),
        Some(_) if data.is_null() => bad_parameters(),
        Some(size) if size > MAX_PARAM_BYTES => bad_parameters(),
        // SAFETY: the buffer has the size that the list states.
        Some(size) => Ok(unsafe { std::slice::from_raw_parts(data, size) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::function::tests::layout;
    use std::ptr::null_mut;

    fn packed(
        layout: &Layout,
        pointers: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> Result<Vec<u8>, CuResult> {
        let mut found = Vec::new();
        // SAFETY: the tests' lists are what the functions under test expect.
        let arguments = unsafe { Arguments::new(pointers, extra) };
        with_packed(layout, arguments, |bytes| {
            found.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn pointers_are_followed_and_padding_is_zero() {
        let layout = layout(&[(0, 4), (8, 8), (16, 1)]);
        let (mut first, mut second, mut third) = (0x0403_0201u32, 0x1122_3344_5566_7788u64, 9u8);
        let mut pointers: [*mut c_void; 3] =
            [(&raw mut first).cast(), (&raw mut second).cast(), (&raw mut third).cast()];
        let bytes = packed(layout, pointers.as_mut_ptr(), null_mut()).unwrap();
        let mut expected = vec![1, 2, 3, 4, 0, 0, 0, 0];
        expected.extend_from_slice(&second.to_le_bytes());
        expected.push(9);
        assert_eq!(bytes, expected);
        pointers[1] = null_mut();
        assert_eq!(packed(layout, pointers.as_mut_ptr(), null_mut()), Err(CuResult::INVALID_VALUE));
    }

    #[test]
    fn the_largest_parameters_fit() {
        let layout = layout(&[(0, MAX_PARAM_BYTES as u32)]);
        let mut value = (0..MAX_PARAM_BYTES).map(|at| at as u8).collect::<Vec<_>>();
        let mut pointers: [*mut c_void; 1] = [value.as_mut_ptr().cast()];
        assert_eq!(packed(layout, pointers.as_mut_ptr(), null_mut()).unwrap(), value);
    }

    #[test]
    fn a_buffer_has_the_size_that_its_list_states() {
        let layout = layout(&[(0, 8), (8, 4)]);
        let mut data = [7u8; 16];
        let mut size = 16usize;
        let (pointer, size_pointer): (*mut c_void, *mut c_void) =
            (data.as_mut_ptr().cast(), (&raw mut size).cast());
        let key = std::ptr::without_provenance_mut::<c_void>;
        let mut extra = [key(BUFFER_POINTER), pointer, key(BUFFER_SIZE), size_pointer, key(END)];
        assert_eq!(packed(layout, null_mut(), extra.as_mut_ptr()).unwrap(), vec![7; 16]);
        // SAFETY: the size lives on.
        unsafe { size_pointer.cast::<usize>().write(11) };
        assert_eq!(packed(layout, null_mut(), extra.as_mut_ptr()).unwrap(), vec![7; 11]);
        // SAFETY: as above.
        unsafe { size_pointer.cast::<usize>().write(MAX_PARAM_BYTES + 1) };
        assert_eq!(packed(layout, null_mut(), extra.as_mut_ptr()), Err(CuResult::INVALID_VALUE));
        extra[2] = key(77);
        assert_eq!(packed(layout, null_mut(), extra.as_mut_ptr()), Err(CuResult::INVALID_VALUE));
        let mut pointers = [pointer];
        assert_eq!(packed(layout, pointers.as_mut_ptr(), extra.as_mut_ptr()), Err(CuResult::INVALID_VALUE));
    }

    #[test]
    fn only_a_kernel_without_parameters_needs_none() {
        assert_eq!(packed(layout(&[]), null_mut(), null_mut()), Ok(vec![]));
        assert_eq!(packed(layout(&[(0, 4)]), null_mut(), null_mut()), Err(CuResult::INVALID_VALUE));
    }
}
