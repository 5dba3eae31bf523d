//! Logic of the event functions.
