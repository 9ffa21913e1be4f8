//! Mistakes in what a route matches and does.

use super::route;

/// A route for every path that does this.
fn does(lines: &str) -> String {
    format!("[routes.orders]\nmatch = {{ path = \"/{{*rest}}\" }}\n{lines}\n")
}

/// Each with what is wrong.
pub(super) fn wrong_routes() -> Vec<(&'static str, String)> {
    let two_routes = |first: &str, second: &str| {
        format!(
            "[routes.a]\nmatch = {{ {first} }}\nservice = \"orders\"\n\
             [routes.b]\nmatch = {{ {second} }}\nservice = \"orders\"\n"
        )
    };
    vec![
        (
            "same routes",
            two_routes("path = \"/users/{id}\"", "path = \"/users/{name}\""),
        ),
        (
            "same routes for HEAD",
            two_routes("methods = [\"GET\"]", "methods = [\"HEAD\"]"),
        ),
        ("host with port", route("host = \"api.example.com:443\"")),
        ("wildcard within", route("host = \"api.*.com\"")),
        ("relative path", route("path = \"orders\"")),
        ("rest in the middle", route("path = \"/{*rest}/orders\"")),
        ("lower case method", route("methods = [\"get\"]")),
        ("header name", route("headers = { \"a b\" = \"1\" }")),
        ("host as a header", route("headers = { Host = \"a\" }")),
        (
            "header expression",
            route("headers = { x-version = { regex = \"(\" } }"),
        ),
        (
            "header form",
            route("headers = { x-version = { matches = \"2\" } }"),
        ),
        (
            "route that does nothing",
            "[routes.a]\nmatch = {}\n".to_owned(),
        ),
        ("route that does two things", route("") + "respond = {}\n"),
        ("unknown listener", route("listeners = [\"publik\"]")),
        ("path expression", route("path = { regex = \"/a(\" }")),
        (
            "path table with a wrong key",
            route("path = { regexp = \"/a\" }"),
        ),
        (
            "header asked for twice",
            route("headers = { X-a = \"1\", x-A = \"2\" }"),
        ),
        ("cookie name", route("cookies = { \"a b\" = \"1\" }")),
        (
            "redirect status",
            does("redirect = { status = 305, scheme = \"https\" }"),
        ),
        ("redirect scheme", does("redirect = { scheme = \"htps\" }")),
        (
            "redirect host with port",
            does("redirect = { host = \"a.test:80\" }"),
        ),
        ("redirect to the same", does("redirect = {}")),
        (
            "redirect of a prefix that is none",
            does("redirect = { prefix = \"/b\" }").replace("/{*rest}", "/a"),
        ),
        (
            "redirect with a rewrite",
            does("redirect = { path = \"/b\" }\nrewrite = { path = \"/b\" }"),
        ),
        (
            "path and prefix",
            does("redirect = { path = \"/b\", prefix = \"/c\" }"),
        ),
        (
            "body of a 204",
            does("respond = { status = 204, body = \"x\" }"),
        ),
        ("informational answer", does("respond = { status = 103 }")),
        (
            "missing body file",
            does("respond = { body = { file = \"missing.html\" } }"),
        ),
        ("rewrite of nothing", route("") + "rewrite = {}\n"),
        (
            "rewrite with an unknown parameter",
            route("path = \"/a/{id}\"") + "rewrite = { path = \"/b/{idd}\" }\n",
        ),
        (
            "rewrite to no host",
            route("") + "rewrite = { host = \"a@b\" }\n",
        ),
        ("weights of 0", does("split = { orders = 0 }")),
        ("weight too large", does("split = { orders = 1000001 }")),
        ("negative weight", does("split = { orders = -1 }")),
        (
            "split over an unknown service",
            does("split = { order = 1 }"),
        ),
        (
            "when without conditions",
            does("split = { orders = { weight = 1, when = [{}] } }"),
        ),
        (
            "split by nothing known",
            does("split = { orders = 1 }\nsplit_by = \"ip\""),
        ),
        (
            "split by a token nobody checks",
            does("split = { orders = 1 }\nsplit_by = \"jwt.sub\""),
        ),
        (
            "split by without split",
            route("") + "split_by = \"client-ip\"\n",
        ),
        (
            "header that frames",
            route("") + "request_headers = { set = { content-length = \"1\" } }\n",
        ),
        (
            "host as header",
            route("") + "request_headers = { set = { Host = \"a\" } }\n",
        ),
        (
            "header changed twice",
            route("") + "response_headers = { set = { x-a = \"1\" }, remove = [\"X-A\"] }\n",
        ),
        (
            "unknown variable",
            route("") + "request_headers = { set = { x-a = \"{client_ip}\" } }\n",
        ),
        (
            "unknown path parameter",
            route("") + "request_headers = { set = { x-a = \"{path.id}\" } }\n",
        ),
        (
            "percentage over 100",
            route("") + "mirror = [{ service = \"orders\", percent = 101.0 }]\n",
        ),
        (
            "fraction over 1",
            route("") + "mirror = [{ service = \"orders\", fraction = \"2/1\" }]\n",
        ),
        (
            "percentage and fraction",
            route("") + "mirror = [{ service = \"orders\", percent = 1.0, fraction = \"1/2\" }]\n",
        ),
        ("no origins", route("") + "cors = { origins = [] }\n"),
        (
            "origin without scheme",
            route("") + "cors = { origins = [\"a.test\"] }\n",
        ),
    ]
}
