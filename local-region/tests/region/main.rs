//! The local region as AWS's own SDK sees it, on records only and by a clock that moves when a test says so.

mod faults;
mod groups;
mod images;
mod instances;
mod multipart;
mod objects;
mod restart;
mod signatures;
mod support;
mod throttling;
