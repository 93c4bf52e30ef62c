# syntax=docker/dockerfile:1

# The build needs gcc, make and perl; this image has all three. librdkafka, OpenSSL and zstd are
# compiled in, so nothing of them is needed at run time.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY src src
COPY config config
COPY schemas schemas
# The caches keep a rebuild short; they are no part of the image, so the binary is copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin hookstream \
    && cp target/release/hookstream /usr/local/bin/hookstream

# The same Debian as above, for its libc. Not distroless: docker-compose.yml runs bash in this image, for its health
# check and its demo sender, so that no client such as curl has to be installed and kept up to date. The HEALTHCHECK
# below does without.
FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="hookstream" \
      org.opencontainers.image.description="Signed webhooks in, Avro events in Kafka out" \
      org.opencontainers.image.licenses="Apache-2.0"
# Authorities for a registry behind https, and for Kafka with TLS. Without a version: Debian keeps
# only the newest of a release, so a pinned one soon cannot be had.
# The spool's directory is there so that a volume mounted on it has the right owner. No VOLUME: one
# that nobody named goes away with its container, and what was answered 202 with it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin hookstream \
    && install -d -o hookstream -g hookstream -m 0700 /var/lib/hookstream
COPY --from=build /usr/local/bin/hookstream /usr/local/bin/hookstream
# A mounted hookstream.toml here is found by itself; schemas of your own go into schemas/ beside it.
WORKDIR /etc/hookstream
# As a number, so that Kubernetes can tell that it is not root. Nothing is written but the spool, so
# the root may be read-only.
USER 10001
# A container's loopback is reached by nobody. These stand above the file: to listen elsewhere, set
# the variables. From outside the container, and without a token, the operator's port has only probes and metrics.
ENV HOOKSTREAM_HTTP__LISTEN=0.0.0.0:8080 \
    HOOKSTREAM_ADMIN__LISTEN=0.0.0.0:9464
EXPOSE 8080 9464
# Healthy is ready. It finds the port by the configuration. Large spools are looked through at start.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m CMD ["hookstream", "status"]
ENTRYPOINT ["hookstream"]
CMD ["serve"]
