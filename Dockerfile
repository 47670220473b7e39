# A static binary, not root, and nothing else: no shell, no package manager.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=development
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /defender-proxy ./cmd/defender-proxy

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /defender-proxy /defender-proxy
USER 65532:65532
# A listener that other machines reach has to name its client groups.
EXPOSE 8080
ENTRYPOINT ["/defender-proxy"]
CMD ["serve", "--config", "/etc/defender-proxy/config.yaml"]
