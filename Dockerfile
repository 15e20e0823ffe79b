# The server and nothing else. The context is what packaging/dist leaves in dist/latest: `make image` does both.
FROM scratch
COPY LICENSE /LICENSE
COPY fortnight /fortnight
USER 65534:65534
ENV eventSourceBindAddress=0.0.0.0
ENV userBindAddress=0.0.0.0
ENV adminBindAddress=0.0.0.0
ENV adminPort=9095
EXPOSE 9090 9099 9095
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/fortnight", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/fortnight"]
