# QScaler's two images and the kubectl plugin, for people with Docker. `cargo xtask images` makes the same layout without it.
#   docker build --target qscaler -t qscaler/qscaler:dev .
#   docker build --target qscaler-sidecar -t qscaler/qscaler-sidecar:dev .
#   docker build --target kubectl-qscaler --output . .
FROM rust:1.90-bookworm AS build
WORKDIR /src
COPY . .
# Static programs: they run on an empty root. The flag is for the target alone, so that build scripts stay ordinary programs.
RUN target="$(uname -m)-unknown-linux-gnu" \
    && flags="CARGO_TARGET_$(echo "$target" | tr a-z- A-Z_)_RUSTFLAGS" \
    && env "$flags=-C target-feature=+crt-static" cargo build --locked --release --target "$target" \
        --package qscaler-webhook --package qscaler-controller --package qscaler-certs --package qscaler-sidecar --package kubectl-qscaler --bins \
    && mkdir -p /out/usr/local/bin \
    && cp "target/$target/release/qscaler-webhook" "target/$target/release/qscaler-controller" \
        "target/$target/release/qscaler-certs" "target/$target/release/qscaler-sidecar" \
        "target/$target/release/kubectl-qscaler" /out/usr/local/bin/
# What a static program on an empty root looks for: who it is, how names resolve, whom to trust.
RUN mkdir -p /base/etc/ssl/certs /base/tmp && chmod 1777 /base/tmp \
    && printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' > /base/etc/passwd \
    && printf 'root:x:0:\nnonroot:x:65532:\n' > /base/etc/group \
    && echo 'hosts: files dns' > /base/etc/nsswitch.conf \
    && cp /etc/ssl/certs/ca-certificates.crt /base/etc/ssl/certs/

FROM scratch AS kubectl-qscaler
COPY --from=build /out/usr/local/bin/kubectl-qscaler /

FROM scratch AS qscaler-sidecar
COPY --from=build /base /
COPY --from=build /out/usr/local/bin/qscaler-sidecar /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/qscaler-sidecar"]

FROM scratch AS qscaler
COPY --from=build /base /
COPY --from=build /out/usr/local/bin/qscaler-webhook /out/usr/local/bin/qscaler-controller /out/usr/local/bin/qscaler-certs /usr/local/bin/
USER 65532:65532
