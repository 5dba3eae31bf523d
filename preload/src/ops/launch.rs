//! Logic of the launch functions.
