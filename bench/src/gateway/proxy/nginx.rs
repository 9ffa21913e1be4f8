//! nginx: workers as CPUs, keep-alive to the origin, no access log.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{CONNECTIONS_MAX, Setup, write};

pub(super) fn command(program: &Path, setup: &Setup) -> Result<Command> {
    let path = write(setup, "nginx.conf", &configuration(setup))?;
    let mut command = Command::new(program);
    command.arg("-p").arg(&setup.directory);
    command.args(["-e", "stderr", "-c"]).arg(path);
    Ok(command)
}

fn configuration(setup: &Setup) -> String {
    let Setup {
        directory,
        certificate,
        origin,
        plain,
        tls,
        cpus,
        routes,
        ..
    } = setup;
    // An end of the connection to the origin for each of the client's.
    let connections = 2 * CONNECTIONS_MAX;
    let workers = cpus.len();
    let (directory, certificate) = (directory.display(), certificate.display());
    let mut text = format!(
        "daemon off;\nworker_processes {workers};\npid {directory}/nginx.pid;\n\
         error_log stderr error;\nuser root;\n\
         events {{ worker_connections {connections}; }}\n\
         http {{\n\
         access_log off;\nserver_tokens off;\n\
         client_body_temp_path {directory}/body;\nproxy_temp_path {directory}/proxy;\n\
         fastcgi_temp_path {directory}/fastcgi;\nuwsgi_temp_path {directory}/uwsgi;\n\
         scgi_temp_path {directory}/scgi;\n\
         keepalive_requests 1000000000;\nkeepalive_timeout 75s;\n\
         upstream origin {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}\n\
         proxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
         proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $remote_addr;\n\
         proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_max_temp_file_size 0;\n\
         ssl_certificate {certificate};\nssl_certificate_key {certificate};\n\
         ssl_protocols TLSv1.2 TLSv1.3;\n\
         server {{\nlisten {plain} backlog=4096;\nlisten {tls} ssl http2 backlog=4096;\n"
    );
    if *routes == 0 {
        text.push_str("location / { proxy_pass http://origin; }\n");
    }
    for route in 0..*routes {
        let _ = writeln!(text, "location /r/{route}/ {{ proxy_pass http://origin; }}");
    }
    text.push_str("}\n}\n");
    text
}
