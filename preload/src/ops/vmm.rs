//! Logic of the vmm functions.
