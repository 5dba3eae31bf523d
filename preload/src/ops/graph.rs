//! Logic of the graph functions.
