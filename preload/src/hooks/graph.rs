//! Hooks of the graph functions.

use super::hooks;

hooks! {
    area graph;
}
