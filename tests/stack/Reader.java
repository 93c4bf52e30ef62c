import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericFixed;
import org.apache.avro.generic.IndexedRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.utils.Utils;

/**
 * Reads topics back with Apache's own Java clients, so that no mistake of ours can hide on both sides.
 *
 * <p>{@code java -cp "$HOOKSTREAM_TEST_CLASSPATH" Reader BOOTSTRAP REGISTRY_URL TOPIC...} prints every record
 * that stood in the topics when it started, one JSON object a line, ordered by partition and offset:
 * {@code topic, partition, expectedPartition} (the Java client's choice for this key; null without a key),
 * {@code offset, timestamp} (ms), {@code timestampType, key, headers, schemaId, value}; a value that is not
 * framed has {@code raw} (its UTF-8 text) instead of the last two. Exit 0, or 1 with the reason on stderr.
 *
 * <p>Environment: {@code READER_TIMEOUT_MS} (default 30000) bounds the whole reading;
 * {@code READER_PROPERTIES} may name a file with more client properties (SASL, TLS).
 */
public final class Reader {
    private static final JsonNodeFactory JSON = JsonNodeFactory.instance;
    private static final ObjectMapper MAPPER = new ObjectMapper();

    private final HttpClient http = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
    private final Map<Integer, Schema> schemas = new HashMap<>();
    private final String registry;

    private Reader(String registry) {
        this.registry = registry.replaceAll("/+$", "");
    }

    public static void main(String[] args) {
        if (args.length < 3) {
            System.err.println("usage: Reader BOOTSTRAP REGISTRY_URL TOPIC...");
            System.exit(2);
        }
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties(args[0]))) {
            Reader reader = new Reader(args[1]);
            for (int i = 2; i < args.length; i++) {
                reader.read(consumer, args[i], out);
            }
        } catch (Exception e) {
            out.flush();
            System.err.println("Reader: " + e);
            System.exit(1);
        }
        out.flush();
    }

    private static Properties properties(String bootstrap) throws IOException {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("key.deserializer", ByteArrayDeserializer.class.getName());
        properties.put("value.deserializer", ByteArrayDeserializer.class.getName());
        properties.put("isolation.level", "read_committed");
        properties.put("default.api.timeout.ms", "10000");
        // A missing topic is an error to report, not one to make.
        properties.put("allow.auto.create.topics", "false");
        String more = System.getenv("READER_PROPERTIES");
        if (more != null) {
            try (var file = Files.newBufferedReader(Path.of(more))) {
                properties.load(file);
            }
        }
        return properties;
    }

    /** Prints one topic, from its beginning to the end offsets seen at the start. */
    private void read(KafkaConsumer<byte[], byte[]> consumer, String topic, PrintStream out) throws Exception {
        long until = System.nanoTime() + timeout().toNanos();
        var infos = consumer.partitionsFor(topic);
        if (infos == null || infos.isEmpty()) {
            throw new IOException("no such topic: " + topic);
        }
        int count = infos.size();
        for (int partition = 0; partition < count; partition++) {
            var here = new TopicPartition(topic, partition);
            long end = consumer.endOffsets(List.of(here)).get(here);
            consumer.assign(List.of(here));
            consumer.seekToBeginning(List.of(here));
            // position() and not the last record's offset: compaction and markers leave holes.
            while (consumer.position(here) < end) {
                if (System.nanoTime() > until) {
                    throw new IOException("time-out reading " + here + " at " + consumer.position(here) + " of " + end);
                }
                for (var record : consumer.poll(Duration.ofMillis(200))) {
                    if (record.offset() < end) {
                        out.println(MAPPER.writeValueAsString(line(record, count)));
                    }
                }
            }
        }
    }

    private static Duration timeout() {
        String text = System.getenv("READER_TIMEOUT_MS");
        return Duration.ofMillis(text == null ? 30_000 : Long.parseLong(text));
    }

    private ObjectNode line(ConsumerRecord<byte[], byte[]> record, int partitions) throws Exception {
        ObjectNode line = JSON.objectNode();
        line.put("topic", record.topic());
        line.put("partition", record.partition());
        byte[] key = record.key();
        line.set("expectedPartition", key == null
                ? JSON.nullNode()
                : JSON.numberNode(Utils.toPositive(Utils.murmur2(key)) % partitions));
        line.put("offset", record.offset());
        line.put("timestamp", record.timestamp());
        line.put("timestampType", record.timestampType().toString());
        line.put("key", text(key));
        ObjectNode headers = line.putObject("headers");
        for (Header header : record.headers()) {
            // Two of one name would hide in an object; no test should have to suspect that. Only a dead letter may have
            // them, as its request did: the values are an array then.
            boolean ofRequest = record.topic().startsWith("dead_letter.") && !header.key().startsWith("hookstream-");
            JsonNode before = headers.get(header.key());
            if (before == null) {
                headers.put(header.key(), text(header.value()));
            } else if (!ofRequest) {
                throw new IOException("header " + header.key() + " twice at offset " + record.offset());
            } else if (before instanceof ArrayNode values) {
                values.add(text(header.value()));
            } else {
                headers.putArray(header.key()).add(before).add(text(header.value()));
            }
        }
        byte[] value = record.value();
        if (value == null || value.length == 0 || value[0] != 0) {
            line.put("raw", text(value));
            return line;
        }
        if (value.length < 5) {
            throw new IOException("a framed value of " + value.length + " bytes at offset " + record.offset());
        }
        int id = ByteBuffer.wrap(value, 1, 4).getInt();
        line.put("schemaId", id);
        line.set("value", decode(schema(id), value));
        return line;
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    private Schema schema(int id) throws IOException, InterruptedException {
        Schema known = schemas.get(id);
        if (known != null) {
            return known;
        }
        var request = HttpRequest.newBuilder(URI.create(registry + "/schemas/ids/" + id))
                .timeout(Duration.ofSeconds(10)).build();
        var response = http.send(request, HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() != 200) {
            throw new IOException("the registry answered " + response.statusCode() + " for schema " + id);
        }
        Schema schema = new Schema.Parser().parse(MAPPER.readTree(response.body()).get("schema").asText());
        schemas.put(id, schema);
        return schema;
    }

    private static JsonNode decode(Schema schema, byte[] value) throws IOException {
        BinaryDecoder decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, null);
        Object datum = new GenericDatumReader<Object>(schema).read(null, decoder);
        if (!decoder.isEnd()) {
            throw new IOException("bytes left over behind the Avro value");
        }
        return json(datum);
    }

    /** Plain JSON: no union tags, logical types as the numbers they are stored as, bytes as base64. */
    private static JsonNode json(Object datum) throws IOException {
        if (datum == null) {
            return JSON.nullNode();
        } else if (datum instanceof IndexedRecord record) {
            ObjectNode node = JSON.objectNode();
            for (Schema.Field field : record.getSchema().getFields()) {
                node.set(field.name(), json(record.get(field.pos())));
            }
            return node;
        } else if (datum instanceof Map<?, ?> map) {
            // Avro's map keys are Utf8, in a hash's order; sorted lines can be compared.
            var sorted = new TreeMap<String, Object>();
            map.forEach((key, item) -> sorted.put(key.toString(), item));
            ObjectNode node = JSON.objectNode();
            for (var entry : sorted.entrySet()) {
                node.set(entry.getKey(), json(entry.getValue()));
            }
            return node;
        } else if (datum instanceof Iterable<?> items) {
            ArrayNode node = JSON.arrayNode();
            for (Object item : items) {
                node.add(json(item));
            }
            return node;
        } else if (datum instanceof ByteBuffer bytes) {
            byte[] copy = new byte[bytes.remaining()];
            bytes.duplicate().get(copy);
            return JSON.textNode(Base64.getEncoder().encodeToString(copy));
        } else if (datum instanceof GenericFixed fixed) {
            return JSON.textNode(Base64.getEncoder().encodeToString(fixed.bytes()));
        } else if (datum instanceof Boolean flag) {
            return JSON.booleanNode(flag);
        } else if (datum instanceof Integer || datum instanceof Long) {
            return JSON.numberNode(((Number) datum).longValue());
        } else if (datum instanceof Float number) {
            // NaN and the infinities are no JSON numbers.
            return Float.isFinite(number) ? JSON.numberNode(number) : JSON.textNode(number.toString());
        } else if (datum instanceof Double number) {
            return Double.isFinite(number) ? JSON.numberNode(number) : JSON.textNode(number.toString());
        }
        return JSON.textNode(datum.toString());
    }
}
