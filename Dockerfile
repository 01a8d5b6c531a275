# docker build -t postern .
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --locked --release --bin postern && cp target/release/postern /usr/local/bin/postern

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/postern --shell /usr/sbin/nologin postern \
    && install -d -o postern -g postern -m 0700 /var/lib/postern /var/lib/postern/data
COPY --from=build /usr/local/bin/postern /usr/local/bin/postern
# A user id, not a name: Kubernetes' runAsNonRoot can only verify a number.
USER 10001:10001
WORKDIR /var/lib/postern
# Database, storage key. Configuration and policies are mounted beside it: config/postern.yaml, policies/.
VOLUME /var/lib/postern/data
EXPOSE 8080 8443 9091
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["postern", "health"]
ENTRYPOINT ["postern"]
CMD ["serve"]
