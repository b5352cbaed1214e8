//! demo
/// o
pub struct DemoOptions {
    /// o
    pub once: bool,
    /// o
    pub json: bool,
    /// o
    pub config_file: Option<std::path::PathBuf>,
    /// o
    pub flags: Vec<(String, String)>,
}
/// r
pub async fn run(_: DemoOptions) -> anyhow::Result<bool> {
    Ok(true)
}
