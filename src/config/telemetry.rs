//! The flags that say where spans go.

use clap::Args;

/// Who is told what one request led to.
#[derive(Debug, Clone, Args)]
pub struct TraceArgs {
    /// Where spans are sent by OTLP over HTTP, such as http://otel-collector.monitoring.svc:4318 (docs/observability.md). None without it.
    #[arg(long, env = "COUNTERSIGN_OTLP_ENDPOINT", value_name = "URL", value_parser = collector)]
    pub otlp_endpoint: Option<String>,
    /// Which part of the requests of callers who do not trace themselves has a span, from 0 to 1.
    #[arg(long, env = "COUNTERSIGN_TRACE_SAMPLE_RATIO", default_value = "0.1", value_parser = ratio)]
    pub trace_sample_ratio: f64,
}

fn collector(text: &str) -> Result<String, String> {
    let rule = "must be an http or https URL without user, query and fragment, for example http://otel-collector:4318";
    let uri: axum::http::Uri = text.parse().map_err(|e| format!("{rule} ({e})"))?;
    let plain = matches!(uri.scheme_str(), Some("http" | "https")) && !text.contains(['?', '#', '@', '\\', ' ']);
    if plain { Ok(text.to_owned()) } else { Err(rule.to_owned()) }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("must be a number from 0 to 1, such as 0.1".to_owned()),
    }
}
