//! Access logs: formats and conditions compiled, targets resolved.

use std::collections::BTreeSet;

use super::super::error::Problem;
use super::super::file::{self, AccessLog, File, LogTarget, Placed};
use super::super::model::AccessLogConfig;
use super::Compiler;
use crate::telemetry::access_log::choice::{Choice, Condition};
use crate::telemetry::access_log::field::{DEFAULT_FIELDS, Field, NoField, Simple};
use crate::telemetry::access_log::format::{BadTemplate, Format, PRESETS};
use crate::telemetry::access_log::sink::Target;
use crate::telemetry::access_log::syslog::{FACILITIES, SyslogAddress, SyslogConfig};

/// Access logs at most.
const LOGS_MAX: usize = 16;
/// Fields of a line at most.
const FIELDS_MAX: usize = 100;
/// Characters of a template at most.
const TEMPLATE_CHARS_MAX: usize = 4096;
/// Characters of a syslog application name at most (RFC 5424 section 6).
const APP_NAME_CHARS_MAX: usize = 48;

impl Compiler<'_> {
    pub(super) fn access_logs(&mut self, file: &File) -> Vec<AccessLogConfig> {
        if file.access_logs.len() > LOGS_MAX {
            self.refuse(Problem::whole(format!(
                "there are more than {LOGS_MAX} access logs"
            )));
        }
        // One log to standard output is there unless the file names any.
        let default = AccessLog::default();
        let first = match &file.access_log {
            Some(log) => Some(log),
            None => file.access_logs.is_empty().then_some(&default),
        };
        let logs = first.into_iter().chain(file.access_logs.values());
        logs.filter_map(|log| self.access_log(log, file)).collect()
    }

    fn access_log(&mut self, log: &AccessLog, file: &File) -> Option<AccessLogConfig> {
        let target = self.log_target(log);
        let redact = log.redact.iter().map(|name| name.as_str().into()).collect();
        let format = self.log_format(log, redact);
        let choice = Choice {
            only: log.only.as_ref().map(|only| self.condition(only, file)),
            sample: self.sample(&log.sample),
            always: log
                .always
                .as_ref()
                .map(|always| self.condition(always, file)),
        };
        Some(AccessLogConfig {
            target: target?,
            format: format?,
            choice,
        })
    }

    fn log_target(&mut self, log: &AccessLog) -> Option<Target> {
        if let Some(path) = log.path.as_ref().filter(|_| log.to != LogTarget::File) {
            let problem = Problem::at(path.span(), "`path` belongs to `to = \"file\"` only");
            self.refuse(problem.hint("write `to = \"file\"`, or leave `path` out"));
        }
        if let Some(syslog) = log.syslog.as_ref().filter(|_| log.to != LogTarget::Syslog) {
            let message = "`syslog` belongs to `to = \"syslog\"` only";
            let problem = Problem::at(syslog.address.span(), message);
            self.refuse(problem.hint("write `to = \"syslog\"`, or leave `syslog` out"));
        }
        match (log.to, &log.path) {
            (LogTarget::Off, _) => None,
            (LogTarget::Stdout, _) => Some(Target::Stdout),
            (LogTarget::File, Some(path)) => Some(Target::File(self.path(path))),
            (LogTarget::File, None) => {
                self.refuse(
                    Problem::whole("`to` of an access log is \"file\", but there is no `path`")
                        .hint("add `path = \"…\"` beside it"),
                );
                None
            }
            (LogTarget::Syslog, _) => {
                let default = file::Syslog::default();
                self.syslog(log.syslog.as_ref().unwrap_or(&default))
            }
        }
    }

    fn syslog(&mut self, syslog: &file::Syslog) -> Option<Target> {
        let facility = FACILITIES
            .iter()
            .position(|known| **known == **syslog.facility);
        if facility.is_none() {
            let message = format!("unknown facility `{}`", syslog.facility);
            let problem = Problem::at(syslog.facility.span(), message);
            self.refuse(problem.nearest(&syslog.facility, FACILITIES));
        }
        let name = &syslog.app_name;
        let printable = |name: &str| name.chars().all(|letter| letter.is_ascii_graphic());
        if name.is_empty() || name.chars().count() > APP_NAME_CHARS_MAX || !printable(name) {
            let message = format!("`{name}` is no name for a sender of syslog messages");
            let hint = format!("use 1 to {APP_NAME_CHARS_MAX} letters and digits, no spaces");
            self.refuse(Problem::at(name.span(), message).hint(hint));
        }
        Some(Target::Syslog(SyslogConfig {
            address: self.syslog_address(&syslog.address)?,
            facility: u8::try_from(facility?).expect("there are 24"),
            app_name: name.to_string(),
        }))
    }

    fn syslog_address(&mut self, text: &Placed<String>) -> Option<SyslogAddress> {
        let read = match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Some(SyslogAddress::Unix(self.path(path))),
            Some(("udp", address)) => address.parse().ok().map(SyslogAddress::Udp),
            Some(("tcp", address)) => address.parse().ok().map(SyslogAddress::Tcp),
            _ => None,
        };
        if read.is_none() {
            let message = format!("`{text}` is no address of a syslog server");
            let hint = "write \"unix:/dev/log\", \"udp:192.0.2.1:514\" or \"tcp:[::1]:601\"";
            self.refuse(Problem::at(text.span(), message).hint(hint));
        }
        read
    }

    fn log_format(&mut self, log: &AccessLog, redact: Vec<Box<str>>) -> Option<Format> {
        let name = &*log.format;
        if name == "json" {
            return self.json_format(log, redact);
        }
        let span = log.format.span();
        if let Some(fields) = &log.fields {
            let place = fields.first().map_or(span.clone(), Placed::span);
            let problem = Problem::at(place, "`fields` belongs to `format = \"json\"` only");
            self.refuse(problem.hint("name the fields in the format, in braces"));
        }
        if let Some(renamed) = log.rename.keys().next() {
            let message = "`rename` belongs to `format = \"json\"` only";
            self.refuse(Problem::at(renamed.span(), message));
        }
        let preset = PRESETS.iter().find(|(known, _)| known == name);
        let template = match preset {
            Some((_, template)) => *template,
            None if !name.contains(['{', '}']) => {
                let known = ["json"].into_iter().chain(PRESETS.map(|(name, _)| name));
                let problem = Problem::at(span, format!("unknown format `{name}`"));
                self.refuse(problem.nearest(name, known));
                return None;
            }
            None => name,
        };
        if template.chars().count() > TEMPLATE_CHARS_MAX {
            let message = format!("the format has more than {TEMPLATE_CHARS_MAX} characters");
            self.refuse(Problem::at(span, message));
            return None;
        }
        Format::template(template, redact)
            .map_err(|bad| {
                let problem = match bad {
                    BadTemplate::Unbalanced => Problem::at(span, "a brace stands alone")
                        .hint("write `{{` and `}}` for braces that are no field"),
                    BadTemplate::Control => {
                        Problem::at(span, "a line cannot hold control characters")
                            .hint("each request has one line; leave line breaks and tabs out")
                    }
                    BadTemplate::Field(name, why) => no_field(span, &name, why),
                };
                self.refuse(problem);
            })
            .ok()
    }

    fn json_format(&mut self, log: &AccessLog, redact: Vec<Box<str>>) -> Option<Format> {
        let defaults = || DEFAULT_FIELDS.map(|field| field.name().to_owned());
        let names: Vec<String> = match &log.fields {
            Some(fields) => fields.iter().map(ToString::to_string).collect(),
            None => defaults().into(),
        };
        if names.is_empty() || names.len() > FIELDS_MAX {
            let message = format!("a line has 1 to {FIELDS_MAX} fields, not {}", names.len());
            self.refuse(Problem::whole(message));
        }
        for renamed in log.rename.keys().filter(|name| !names.contains(&***name)) {
            let message = format!("`{renamed}` is renamed, but no field of the line");
            let known = names.iter().map(String::as_str);
            self.refuse(Problem::at(renamed.span(), message).nearest(renamed, known));
        }
        let (mut fields, mut keys) = (Vec::new(), BTreeSet::new());
        for (place, name) in names.iter().enumerate() {
            let typed = log.fields.as_ref().and_then(|fields| fields.get(place));
            let span = typed.map_or(0..0, Placed::span);
            let key = log.rename.get(name.as_str()).map_or(name, |key| key);
            if !keys.insert(key) {
                let message = format!("two fields of the line are called `{key}`");
                self.refuse(Problem::at(span.clone(), message));
            }
            match Field::parse(name) {
                Ok(field) => fields.push((key.as_str(), field)),
                Err(why) => self.refuse(no_field(span, name, why)),
            }
        }
        (fields.len() == names.len()).then(|| Format::json(fields, redact))
    }

    fn condition(&mut self, condition: &file::Condition, file: &File) -> Condition {
        let status = condition.status.iter();
        let status = status.filter_map(|text| self.statuses(text)).collect();
        for route in &condition.routes {
            if !self.has_route(file, route) {
                let problem = Problem::at(route.span(), format!("unknown route `{route}`"));
                let known = file.routes.keys().map(|name| name.as_str());
                self.refuse(problem.nearest(route, known));
            }
        }
        let routes = condition.routes.iter().map(|route| route.as_str().into());
        let slower = condition.slower_than.as_ref();
        let typed = !condition.status.is_empty() || !condition.routes.is_empty();
        if !typed && slower.is_none() && !condition.failed {
            self.refuse(
                Problem::whole("a condition of an access log is empty, so nothing would meet it")
                    .hint("name `status`, `slower_than`, `failed` or `routes`"),
            );
        }
        Condition {
            status,
            slower_than_us: slower.map(|limit| limit.0.as_micros() as u64),
            failed: condition.failed,
            routes: routes.collect(),
        }
    }

    /// `404`, or `5xx`.
    fn statuses(&mut self, text: &Placed<String>) -> Option<(u16, u16)> {
        let class = text
            .strip_suffix("xx")
            .and_then(|class| class.parse::<u16>().ok());
        let range = match (class, text.parse::<u16>()) {
            (Some(class @ 1..=5), _) => Some((class * 100, class * 100 + 99)),
            (_, Ok(status @ 100..=599)) => Some((status, status)),
            _ => None,
        };
        if range.is_none() {
            let problem = Problem::at(text.span(), format!("`{text}` is no status"));
            self.refuse(problem.hint("write a status as in \"404\", or a class as in \"5xx\""));
        }
        range
    }

    /// Of 2^64 requests so many; `None`: all.
    pub(super) fn sample(&mut self, text: &Placed<String>) -> Option<u64> {
        let percent = text
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok());
        match percent {
            Some(100.0) => None,
            // The last bits of the product are lost, which no sample can show.
            Some(percent) if (0.0..100.0).contains(&percent) => {
                Some((percent / 100.0 * 2.0_f64.powi(64)) as u64)
            }
            _ => {
                let problem = Problem::at(text.span(), format!("`{text}` is no share"));
                self.refuse(problem.hint("write \"0.1%\" to \"100%\""));
                None
            }
        }
    }
}

fn no_field(span: std::ops::Range<usize>, name: &str, why: NoField) -> Problem {
    match why {
        NoField::Unknown => {
            let known = Simple::ALL.iter().map(|field| field.name());
            Problem::at(span, format!("unknown field `{name}`")).nearest(name, known)
        }
        NoField::Secret => {
            let message = format!("`{name}` would put secrets into the log");
            Problem::at(span, message).hint("use `subject` to see who sent a request")
        }
    }
}
