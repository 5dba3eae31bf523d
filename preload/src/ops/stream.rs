//! Logic of the stream functions.
