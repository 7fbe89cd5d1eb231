//! The HTTP API of Prometheus (`/api/v1/query`), as its documentation describes it.

use serde_json::Value;

use crate::engine::monitor::Subject;

/// The address of an instant query.
///
/// Errors: the base URL is none.
pub(super) fn url(base: &str, query: &str) -> Result<String, String> {
    let mut url: reqwest::Url = base.parse().map_err(|error| format!("promql.url: {error}"))?;
    let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.query_pairs_mut().append_pair("query", query);
    Ok(url.into())
}

/// The series of an answer: a vector, or a scalar.
///
/// Errors: what Prometheus said, or that it is no Prometheus.
pub(super) fn subjects(answer: &Value) -> Result<Vec<Subject>, String> {
    let (status, body) = (&answer["status"], &answer["json"]);
    if body["status"] == "error" {
        return Err(format!("Prometheus refused the query: {}", body["error"].as_str().unwrap_or("without a reason")));
    }
    if *status != 200 || body["status"] != "success" {
        return Err(format!("status {status}, which is no answer of a Prometheus: look at promql.url"));
    }
    let data = &body["data"];
    match data["resultType"].as_str() {
        Some("vector") => Ok(data["result"].as_array().into_iter().flatten().map(series).collect()),
        Some("scalar") => {
            let value = number(&data["result"]);
            Ok(vec![Subject { name: String::new(), sample: value, value: Value::Object(serde_json::Map::new()) }])
        }
        other => Err(format!("the query yields {}, a vector or a scalar is wanted", other.unwrap_or("nothing"))),
    }
}

fn series(series: &Value) -> Subject {
    let labels = series["metric"].as_object().cloned().unwrap_or_default();
    let mut named: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
    named.sort();
    Subject { name: named.join(","), sample: number(&series["value"]), value: Value::Object(labels) }
}

/// `[seconds, "text"]`; NaN and infinities are no samples.
fn number(value: &Value) -> Option<f64> {
    value[1].as_str()?.parse::<f64>().ok().filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_query_is_escaped_behind_any_base() {
        let expected = "http://prom:9090/api/v1/query?query=up%7Bjob%3D%22a+b%22%7D";
        assert_eq!(url("http://prom:9090", "up{job=\"a b\"}").unwrap(), expected);
        assert!(url("http://prom/x/", "up").unwrap().starts_with("http://prom/x/api/v1/query?"));
        assert!(url("prom", "up").is_err());
    }

    #[test]
    fn answers_are_read_and_errors_told() {
        let answer = |body: Value| json!({"status": 200, "json": body});
        let vector = answer(json!({"status": "success", "data": {"resultType": "vector", "result": [
            {"metric": {"job": "a", "instance": "b"}, "value": [1.5, "3"]}, {"metric": {}, "value": [1.5, "NaN"]},
        ]}}));
        let subjects = super::subjects(&vector).unwrap();
        assert_eq!((subjects[0].name.as_str(), subjects[0].sample), ("instance=b,job=a", Some(3.0)));
        assert_eq!(subjects[1].sample, None);
        let refused = super::subjects(&json!({"status": 400, "json": {"status": "error", "error": "parse error"}}));
        assert_eq!(refused.unwrap_err(), "Prometheus refused the query: parse error");
        assert!(
            super::subjects(&json!({"status": 404, "json": null})).unwrap_err().contains("no answer of a Prometheus")
        );
        let matrix = answer(json!({"status": "success", "data": {"resultType": "matrix", "result": []}}));
        assert!(super::subjects(&matrix).unwrap_err().contains("yields matrix"));
    }
}
