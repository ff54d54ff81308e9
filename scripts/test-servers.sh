# Functions for install-test-servers and with-test-servers: which servers of the tests, browser and JavaScript library are
# installed.

# The last version that runs on the Node.js of Debian 12.
azurite_version=3.35.0
azurite_folder="$(dirname "$0")/../.azurite"
webhooks_version=1.1.1
webhooks_folder="$(dirname "$0")/../.standardwebhooks"

have_postgres() {
    [ -n "${TEST_DATABASE_URL:-}" ] || command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

have_pgbouncer() {
    command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]
}

have_rabbitmq() {
    [ -n "${TEST_RABBITMQ_URL:-}" ] || [ -e /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null
}

have_prometheus() {
    command -v prometheus >/dev/null && command -v promtool >/dev/null
}

have_nginx() {
    [ -n "${TEST_NGINX:-}" ] || command -v nginx >/dev/null || [ -x /usr/sbin/nginx ]
}

have_azurite() {
    [ -n "${TEST_AZURE_URL:-}" ] || {
        command -v node >/dev/null &&
            grep -qs "\"version\": \"$azurite_version\"" "$azurite_folder/node_modules/azurite/package.json"
    }
}

# The official library for receivers of webhooks.
have_webhooks() {
    command -v node >/dev/null &&
        grep -qs "\"version\": \"$webhooks_version\"" "$webhooks_folder/node_modules/standardwebhooks/package.json"
}

# The names in harness/chromium.py.
have_chromium() {
    for name in ${TEST_CHROMIUM:-chromium chromium-browser google-chrome-stable google-chrome}; do
        command -v "$name" >/dev/null && return
    done
    return 1
}

# Prints the Debian packages of the missing servers, and of the browser.
missing_packages() {
    missing=
    have_postgres || missing="$missing postgresql"
    have_pgbouncer || missing="$missing pgbouncer"
    have_rabbitmq || missing="$missing rabbitmq-server"
    have_prometheus || missing="$missing prometheus"
    have_nginx || missing="$missing nginx-light"
    have_chromium || missing="$missing chromium"
    command -v openssl >/dev/null || missing="$missing openssl"
    { have_azurite && have_webhooks; } || command -v npm >/dev/null || missing="$missing nodejs npm"
    echo "${missing# }"
}
