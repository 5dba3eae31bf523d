//! Initialisation, versions, error texts and the look-up of entry points.

use std::ffi::{c_char, c_int, c_void};

use lightos_softgpu_engine::profile::CUDA_VERSION;

use crate::abi::Text;
use crate::edge::{exports, put, put_some, text};
use crate::error::{Error, describe};
use crate::{device, procaddr};

exports! { TABLE:
    early cuInit: (flags: u32) { device::init(flags) }
    early cuDriverGetVersion: (version: *mut c_int) { put(version, CUDA_VERSION) }
    early cuGetErrorName: (error: u32, name: *mut *const c_char) {
        put(name, std::ptr::null())?;
        put(name, describe(error).ok_or(Error::INVALID_VALUE)?.0.as_ptr())
    }
    early cuGetErrorString: (error: u32, string: *mut *const c_char) {
        put(string, std::ptr::null())?;
        put(string, describe(error).ok_or(Error::INVALID_VALUE)?.1.as_ptr())
    }
    early cuGetProcAddress: (symbol: Text, function: *mut *mut c_void, version: c_int, flags: u64) {
        let found = procaddr::find(text(symbol)?, version, flags)?;
        put(function, found.address.ok_or(Error::NOT_FOUND)?.cast_mut().cast())
    }
    early cuGetProcAddress_v2: (
        symbol: Text, function: *mut *mut c_void, version: c_int, flags: u64, status: *mut u32
    ) {
        put(function, std::ptr::null_mut())?;
        let found = procaddr::find(text(symbol)?, version, flags)?;
        put_some(status, found.status);
        match found.address {
            Some(address) => put(function, address.cast_mut().cast()),
            None if status.is_null() => Err(Error::NOT_FOUND),
            None => Ok(()),
        }
    }
    early cuGetExportTable: (table: *mut *const c_void, _id: *const [u8; 16]) {
        put(table, std::ptr::null())?;
        Err(Error::NOT_FOUND)
    }
    entry cuProfilerStart: () { crate::context::current().map(drop) }
    entry cuProfilerStop: () { crate::context::current().map(drop) }
}
