//! phi-vault: a service that keeps protected health information field by field, so that no other service has to.
//!
//! The layers, from the top; an arrow points only downwards (a test keeps it so):
//!
//! `app` → `grpc`, `jobs` → `vault` → `audit`, `access`, `keyring`, `store`, `kms` → `crypto` → `domain`
//!
//! See ARCHITECTURE.md for what must never be.
#![forbid(unsafe_code)]

pub mod access;
pub mod app;
pub mod audit;
pub mod crypto;
pub mod domain;
pub mod grpc;
pub mod jobs;
pub mod keyring;
pub mod kms;
pub mod store;
pub mod vault;

#[cfg(test)]
mod layers;
