//! The local region as a process of its own: where its state is, how it is started, found and ended.
//!
//! `alcedo region start` starts `alcedo region serve` in a session of its own and waits until it answers. The server
//! writes `region.json` once it listens and removes it when it ends; a file left by one that died is recognised, because
//! nobody holds `serve.lock` any more.

pub mod folder;
pub mod record;
pub mod serve;
pub mod settings;
pub mod start;
pub mod stop;
