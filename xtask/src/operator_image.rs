//! The operator's image: one static binary, no shell, not root.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    image::{self, ImageSpec},
    workspace::{self, Profile},
};

/// An image that was built.
pub struct Built {
    /// The OCI tar.
    pub tar: PathBuf,
    /// The name under which a cluster knows it.
    pub reference: String,
}

/// Builds the binary and the image around it.
pub fn build(profile: Profile) -> Result<Built> {
    const REFERENCE: &str = "localhost/soak-operator:dev";
    let binary = workspace::cargo_build_static(profile, &["--package", "soak-operator", "--bin", "soak-operator"])?
        .join("soak-operator");
    let mut spec =
        ImageSpec::new(REFERENCE).file(&binary, "soak-operator", 0o755).entrypoint(&["/soak-operator"]).user(65_532);
    // `http` steps to public servers need the public authorities.
    let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if authorities.exists() {
        spec = spec.file(authorities, "etc/ssl/certs/ca-certificates.crt", 0o644);
    }
    Ok(Built { tar: image::build(&spec)?, reference: REFERENCE.into() })
}
