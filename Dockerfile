# Node 24 is the oldest line with long-term support; the suite passes on 20, 22 and 24.
FROM node:24.21.0-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci
COPY . .
RUN npm run build && npm prune --omit=dev

FROM node:24.21.0-bookworm-slim
# The data folder belongs to the user that runs Puback: a volume made from it takes that over. The
# embedded PostgreSQL wants a user with an entry in /etc/passwd, which `node` (uid 1000) has.
RUN mkdir /data && chown node:node /data
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/LICENSE ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
# Read at run time.
COPY --from=build /app/drizzle/migrations ./drizzle/migrations
# Inside a container loopback reaches nobody. Publish port 1883 to trusted networks only.
ENV DATA_DIR=/data MQTT_HOST=0.0.0.0 HTTP_HOST=0.0.0.0
USER node
VOLUME /data
EXPOSE 1883 8883 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.HTTP_PORT || 8080}/health/ready`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "--max-semi-space-size=32", "--enable-source-maps", "dist/main.js"]
