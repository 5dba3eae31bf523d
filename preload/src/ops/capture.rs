//! Logic of the capture functions.
