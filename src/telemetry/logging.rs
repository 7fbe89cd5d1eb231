//! Log lines: JSON for machines (one flat object a line), or text for people.
//!
//! The JSON of `tracing-subscriber` nests span fields, and flattens those of the innermost span only. A log pipeline
//! wants `run` and `cycle` at the top of each line, so the layer here collects the fields of all spans around an event.

use std::{fmt, io, str::FromStr};

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
    layer::{Context, Filter, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Container runtimes cut a line at 16 KiB, which would leave two lines that are no JSON.
const MAX_VALUE_BYTES: usize = 4 * 1024;

/// Keys that the layer writes itself; a field of such a name is written as `field.NAME`.
const RESERVED: [&str; 4] = ["timestamp", "level", "target", "message"];

/// Targets of this crate begin so.
const OWN_TARGET: &str = "soak";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Text for people.
    Text,
}

impl FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, LoggingError> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(LoggingError::Format(other.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not in the syntax of `tracing`'s env filter.
    #[error("the log level {0:?} is not a level or a list of target=level: {1}")]
    Filter(String, tracing_subscriber::filter::ParseError),
    /// There is no such format.
    #[error("the log format {0:?} is neither json nor text")]
    Format(String),
    /// A subscriber is installed already.
    #[error("logging was set up twice: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends the log lines of the whole process to standard error. `filter` is a level (`info`) or a list of directives
/// (`info,kube_client=debug`), from `--log-level` or `RUST_LOG`.
///
/// Spans of this crate from level INFO up are always kept: under `warn` a warning still says which run it is about.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    Ok(subscriber(format, filter, io::stderr)?.try_init()?)
}

/// What [`init`] installs, with a writer of the caller's choice.
pub fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + 'static, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let directives =
        EnvFilter::builder().parse(filter).map_err(|error| LoggingError::Filter(filter.to_owned(), error))?;
    let layer = match format {
        LogFormat::Json => JsonLayer { writer }.boxed(),
        LogFormat::Text => {
            tracing_subscriber::fmt::layer().with_timer(UtcMillis).with_ansi(false).with_writer(writer).boxed()
        }
    };
    Ok(Registry::default().with(layer.with_filter(KeepOwnSpans(directives))))
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

struct UtcMillis;

impl FormatTime for UtcMillis {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        w.write_str(&now())
    }
}

/// The filter of the user, but for the spans that carry a run's coordinates.
struct KeepOwnSpans(EnvFilter);

fn is_own_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() <= tracing::Level::INFO && metadata.target().starts_with(OWN_TARGET)
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for KeepOwnSpans {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        is_own_span(metadata) || Filter::enabled(&self.0, metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // The env filter must see each callsite, as it keeps its directives by callsite.
        let interest = Filter::<S>::callsite_enabled(&self.0, metadata);
        if is_own_span(metadata) { Interest::always() } else { interest }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Filter::<S>::max_level_hint(&self.0).map(|level| level.max(LevelFilter::INFO))
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        Filter::event_enabled(&self.0, event, context)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        Filter::on_new_span(&self.0, attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        Filter::on_record(&self.0, id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        Filter::on_enter(&self.0, id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        Filter::on_exit(&self.0, id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        Filter::on_close(&self.0, id, context);
    }
}

/// Writes an event as one flat JSON object; an inner span's field wins over an outer one's, the event's own over both.
struct JsonLayer<W> {
    writer: W,
}

struct SpanFields(Map<String, Value>);

impl<S, W> Layer<S> for JsonLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Map::new();
        attributes.record(&mut Collect(&mut fields));
        span.extensions_mut().insert(SpanFields(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(SpanFields(fields)) = span.extensions_mut().get_mut() {
            values.record(&mut Collect(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Map::new();
        for span in context.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            if let Some(SpanFields(of_span)) = span.extensions().get() {
                fields.extend(of_span.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
        }
        let mut own = Map::new();
        event.record(&mut Collect(&mut own));
        let message = own.remove("message");
        fields.extend(own);

        let metadata = event.metadata();
        let mut line = Map::new();
        line.insert("timestamp".into(), now().into());
        line.insert("level".into(), metadata.level().as_str().into());
        line.insert("target".into(), metadata.target().into());
        line.extend(message.map(|message| ("message".to_owned(), message)));
        line.extend(fields.into_iter().map(|(key, value)| {
            let key = if RESERVED.contains(&key.as_str()) { format!("field.{key}") } else { key };
            (key, value)
        }));
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // One write, so that lines of several threads do not mix. Where it can't be written there is nobody to tell.
        let _ = io::Write::write_all(&mut self.writer.make_writer_for(metadata), text.as_bytes());
    }
}

/// Collects fields as JSON values, each bounded.
struct Collect<'a>(&'a mut Map<String, Value>);

impl Collect<'_> {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

fn bounded(text: &str) -> String {
    if text.len() <= MAX_VALUE_BYTES {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_VALUE_BYTES);
    format!("{}… ({} bytes more)", &text[..end], text.len() - end)
}

impl Visit for Collect<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, bounded(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // NaN and the infinities have no JSON number.
        match serde_json::Number::from_f64(value) {
            Some(number) => self.set(field, number),
            None => self.set(field, value.to_string()),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.set(field, bounded(&text));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, bounded(&format!("{value:?}")));
    }
}

#[cfg(test)]
#[path = "logging_tests.rs"]
mod tests;
