//! Others' tools judge us.
