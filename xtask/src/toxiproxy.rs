//! The image of Toxiproxy, a proxy that makes a network bad on purpose: tests and examples run it.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    image::{self, ImageSpec},
    tools,
};

/// Builds the server and the image `localhost/toxiproxy:1` around it; the answer is the OCI tar.
pub fn build() -> Result<PathBuf> {
    let server = tools::path("toxiproxy-server")?;
    let spec = ImageSpec::new("localhost/toxiproxy:1")
        .file(&server, "toxiproxy-server", 0o755)
        .entrypoint(&["/toxiproxy-server"])
        // Its API is for the pod's neighbours too.
        .command(&["-host", "0.0.0.0"])
        .user(65_532);
    image::build(&spec)
}
