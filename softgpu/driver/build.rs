fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    // A preloaded library that exports the same names must not capture the driver's references to its own functions.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    // Stream threads run this code until the process ends, so it must outlive dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
