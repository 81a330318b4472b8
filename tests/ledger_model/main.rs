//! The ledger's `decide`, judged from outside: each rule alone, all of them explored in a small world of clients that
//! crash and requests that come twice or late, and long random runs beside a second ledger that only adds up.

mod again;
mod books;
mod dated;
mod expiring;
mod explored;
mod levels;
mod periods;
mod plain;
mod random;
mod recounting;
mod reserving;
mod settling;
mod voiding;
