# The image, for who has a container engine: docker build --tag countersign .
# `make image` makes the same binary and the same files without one, and checks
# them; this file is not built by any test.
#
# Pin the base by its digest where you build: --build-arg BASE=…@sha256:…
ARG BASE=docker.io/library/rust:1.95.0-bookworm
FROM ${BASE} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3
WORKDIR /countersign
COPY . .
RUN binary=$(image/build.sh) \
	&& install -D "$binary" /image/usr/bin/countersign \
	&& install -D --mode=0644 LICENSE /image/usr/share/doc/countersign/LICENSE \
	&& mkdir -p /image/etc/ssl/certs \
	&& image/roots.py >/image/etc/ssl/certs/ca-certificates.crt

FROM scratch
LABEL org.opencontainers.image.title="countersign" \
	org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
USER 65532:65532
ENTRYPOINT ["/usr/bin/countersign"]
