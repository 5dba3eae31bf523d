//! The exported functions: one file per CUDA object, each a thin edge over the logic of the same name.

pub mod array;
pub mod batch;
pub mod capture;
pub mod context;
pub mod copy;
pub mod device;
pub mod event;
pub mod function;
pub mod graph;
pub mod graph_exec;
pub mod graph_node;
pub mod init;
pub mod ipc;
pub mod launch;
pub mod legacy;
pub mod link;
pub mod memory;
pub mod memset;
pub mod module;
pub mod pool;
pub mod stream;
pub mod texture;
pub mod unserved;
pub mod vmm;

use crate::edge::Export;

/// Every export, served or not.
pub fn exports() -> impl Iterator<Item = &'static Export> {
    let tables: [&'static [Export]; 24] = [
        array::TABLE,
        batch::TABLE,
        capture::TABLE,
        context::TABLE,
        copy::TABLE,
        device::TABLE,
        event::TABLE,
        function::TABLE,
        graph::TABLE,
        graph_exec::TABLE,
        graph_node::TABLE,
        init::TABLE,
        ipc::TABLE,
        launch::TABLE,
        legacy::TABLE,
        link::TABLE,
        memory::TABLE,
        memset::TABLE,
        module::TABLE,
        pool::TABLE,
        stream::TABLE,
        texture::TABLE,
        unserved::TABLE,
        vmm::TABLE,
    ];
    tables.into_iter().flatten()
}
