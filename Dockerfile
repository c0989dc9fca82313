# Builds one static binary and runs it as nobody. Build: docker build -t crossroads .
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /crossroads ./cmd/crossroads \
 && mkdir -p /var/lib/crossroads

FROM scratch
COPY --from=build /crossroads /crossroads
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /var/lib/crossroads /var/lib/crossroads
USER 65532:65532
VOLUME /var/lib/crossroads
EXPOSE 7400/udp 7480/tcp
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["/crossroads", "node", "health", "--config", "/etc/crossroads/node.yaml"]
ENTRYPOINT ["/crossroads"]
CMD ["node", "run", "--config", "/etc/crossroads/node.yaml"]
