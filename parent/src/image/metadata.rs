//! How an image says that it was made: the JSON of its metadata section, with the names that `nitro-cli` gives and
//! demands. Not measured: anybody can change it.

use serde::Serialize;
use serde_json::Value;

/// The metadata section.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    /// The image's name.
    pub image_name: String,
    /// Its version.
    pub image_version: String,
    /// Who made it, and when.
    pub build_metadata: BuildMetadata,
    /// Of an image that was made from a container image: what Docker says of that. Null here, but it must be there.
    pub docker_info: Value,
    /// What its maker wanted to add. Likewise.
    pub custom_metadata: Value,
}

/// Who made an image, and when.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildMetadata {
    /// RFC 3339.
    pub build_time: String,
    /// The program.
    pub build_tool: String,
    /// Its version.
    pub build_tool_version: String,
    /// The enclave's operating system.
    pub operating_system: String,
    /// The kernel's version, if anybody said it.
    pub kernel_version: String,
}

impl Metadata {
    /// The metadata of an image that this program makes.
    #[must_use]
    pub fn new(image_name: String, image_version: String, build_time: String) -> Self {
        Self {
            image_name,
            image_version,
            build_metadata: BuildMetadata {
                build_time,
                build_tool: "strongroom".to_owned(),
                build_tool_version: env!("CARGO_PKG_VERSION").to_owned(),
                operating_system: "Linux".to_owned(),
                kernel_version: "Unknown".to_owned(),
            },
            docker_info: Value::Null,
            custom_metadata: Value::Null,
        }
    }
}
