# syntax=docker/dockerfile:1

# The build needs gcc, make and perl; this image has all three. librdkafka, OpenSSL and zstd are
# compiled in, so nothing of them is needed at run time.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY config config
COPY schemas schemas
# The caches keep a rebuild short; they are no part of the image, so the binary is copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin hookstream \
    && cp target/release/hookstream /usr/local/bin/hookstream

# The same Debian as above, for its libc. Not distroless: the health checks of docker-compose.yml
# use bash, so that no client such as curl has to be installed and kept up to date.
FROM debian:bookworm-slim
# Authorities for a registry behind https, and for Kafka with TLS.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin hookstream
COPY --from=build /usr/local/bin/hookstream /usr/local/bin/hookstream
# A mounted hookstream.toml here is found by itself; schemas of your own go into schemas/ beside it.
WORKDIR /etc/hookstream
# As a number, so that Kubernetes can tell that it is not root.
USER 10001
# A container's loopback is reached by nobody. These stand above the file: to listen elsewhere, set
# the variables.
ENV HOOKSTREAM_HTTP__LISTEN=0.0.0.0:8080 \
    HOOKSTREAM_ADMIN__LISTEN=0.0.0.0:9464
EXPOSE 8080 9464
ENTRYPOINT ["hookstream"]
CMD ["serve"]
