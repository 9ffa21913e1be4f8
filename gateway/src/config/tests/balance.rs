//! Mistakes in the instances of a service and how one is chosen.

use super::SERVICE;

/// Every kind of mistake that is refused, by what is wrong.
pub(super) fn wrong() -> Vec<(&'static str, String)> {
    vec![
        (
            "no endpoints",
            "[services.orders]\nendpoints = []\n".to_owned(),
        ),
        (
            "endpoint by name",
            "[services.orders]\nendpoints = [\"localhost:80\"]\n".to_owned(),
        ),
        (
            "endpoint at port 0",
            "[services.orders]\nendpoints = [\"10.0.0.1:0\"]\n".to_owned(),
        ),
        (
            "endpoint twice",
            "[services.orders]\nendpoints = [\"[::1]:80\", \"[::1]:80\"]\n".to_owned(),
        ),
        (
            "hash without key",
            format!("{SERVICE}balance = \"consistent-hash\"\n"),
        ),
        (
            "key without hash",
            format!("{SERVICE}hash_by = \"client-ip\"\n"),
        ),
        (
            "endpoint out of range",
            "[services.orders]\nendpoints = [{ address = \"10.0.0.1:80\", weight = 65536 }]\n"
                .to_owned(),
        ),
        (
            "endpoint with an unknown key",
            "[services.orders]\nendpoints = [{ address = \"10.0.0.1:80\", wight = 2 }]\n"
                .to_owned(),
        ),
        (
            "endpoint in no zone",
            "[services.orders]\nendpoints = [{ address = \"10.0.0.1:80\", zone = \"\" }]\n"
                .to_owned(),
        ),
        (
            "settings of other balancing",
            format!("{SERVICE}hash_load_percent_max = 150\newma_decay = \"1s\"\n"),
        ),
        (
            "hash bound below the mean",
            format!(
                "{SERVICE}balance = \"consistent-hash\"\nhash_by = \"cookie.id\"\n\
                 hash_load_percent_max = 99\n"
            ),
        ),
        (
            "failover out of range",
            format!(
                "{SERVICE}failover = {{ overprovisioning_percent = 99, panic_percent = 101 }}\n"
            ),
        ),
        (
            "cookie that browsers refuse",
            format!(
                "{SERVICE}sticky = {{ cookie = \"a b\", path = \"x\", same_site = \"none\" }}\n"
            ),
        ),
    ]
}
