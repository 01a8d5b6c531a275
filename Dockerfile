# docker build -t postern --build-arg COMMIT=$(git rev-parse HEAD) .
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
# What postern_build_info says; .git stays outside of the build.
ARG COMMIT=unknown
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    POSTERN_COMMIT="$COMMIT" cargo build --locked --release --bin postern && cp target/release/postern /usr/local/bin/postern

FROM debian:bookworm-slim
# ca-certificates: by what upstreams on https:// are verified.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 postern \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/postern --shell /usr/sbin/nologin postern \
    && install -d -o postern -g postern -m 0700 /var/lib/postern /var/lib/postern/data
COPY --from=build /usr/local/bin/postern /usr/local/bin/postern
# A user id, not a name: Kubernetes' runAsNonRoot can only verify a number.
USER 10001:10001
WORKDIR /var/lib/postern
# Keep data/ (database, storage key, the socket of `postern limit show`) in a volume, and mount config/postern.yaml and policies/
# beside it: files readable by 10001, data/ writable. No VOLUME: an anonymous one would swallow data/ of a folder that is mounted at /var/lib/postern. Listeners must not
# be on 127.0.0.1 where ports are published: write 0.0.0.0:8080.
EXPOSE 8080 8443 9091
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["postern", "health"]
ENTRYPOINT ["postern"]
CMD ["serve"]
