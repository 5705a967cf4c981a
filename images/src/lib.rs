//! From a recipe to a container image and a server image with the same root.
//!
//! Two arrows start at one [`recipe`]:
//!
//! ```text
//! recipe ─ bootstrap ─▶ engine image ─ build_image (build packages) ─▶ container ─ archive ─▶ artifact.tar.zst
//!    └──────────────────▶ server's base ─ builder: provision, scrub ─▶ server image ◀─ installed from ┘
//! ```
//!
//! The first makes the artifact: [`build_image`] adds build packages to the recipe's root, [`build`] runs the commands
//! in it, [`archive`] packs what it made. The second makes the server image: [`session`] reaches a builder whose host
//! key was read from its [`console`], [`provision`] installs the artifact and runs the project's steps, [`scrub`]
//! removes what belongs to one machine only. [`base_match`] keeps the arrows together: an artifact is installed only on
//! the root that it was built for. [`inputs`] and [`fingerprint`] say when an artifact or an image can be reused.
//!
//! This crate knows no cloud. Its caller launches the builder, opens the way to it, and makes an image of it.

pub mod ansible;
pub mod archive;
pub mod base;
pub mod base_match;
pub mod bootstrap;
pub mod build;
pub mod build_image;
mod canon;
pub mod client_files;
mod collect;
pub mod commit;
pub mod console;
mod container;
pub mod elf;
pub mod engine;
pub mod event;
pub mod fingerprint;
pub mod inputs;
pub mod inspect;
pub mod key;
pub mod leftover;
mod lines;
pub mod pack;
pub mod packages;
mod pipe;
pub mod platform;
pub mod provision;
pub mod recipe;
mod root_archive;
pub mod scrub;
pub mod secret_files;
pub mod session;
pub mod source;

pub use bootstrap::BaseImage;
pub use engine::Engine;
