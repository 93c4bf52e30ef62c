-- Two of hookstream's topics as tables of Flink SQL. We have not run it: a test compares the columns with the schemas.
-- Needs the connector flink-sql-connector-kafka and the format flink-sql-avro-confluent-registry.
--
-- `upsert-kafka` reads a topic by key: the latest record of a key is its row, so an event that was delivered twice is
-- one row. The key is the event id as text (format `raw`). It is not part of the value, hence the column `event_key`
-- and EXCEPT_KEY. Omit columns that you do not need.
--
-- For the other topics see docs/topics.md: timestamp-millis is TIMESTAMP(3) (in UTC), long BIGINT, a record ROW<...>.
-- Dead letters are not Avro; they are in separate topics.

CREATE TABLE batch_prediction_completed (
  `event_key` STRING,
  `id` STRING,
  `type` STRING,
  `source` STRING,
  `time` TIMESTAMP(3),            -- when it happened; null if the provider sent none
  `received_at` TIMESTAMP(3),     -- when hookstream received it
  `data` ROW<
    `id` STRING,
    `object` STRING,
    `status` STRING,
    `model` STRING,
    `completion_window` STRING,
    `created_at` TIMESTAMP(3),
    `in_progress_at` TIMESTAMP(3),
    `finalizing_at` TIMESTAMP(3),
    `completed_at` TIMESTAMP(3),
    `failed_at` TIMESTAMP(3),
    `expired_at` TIMESTAMP(3),
    `expires_at` TIMESTAMP(3),
    `cancelling_at` TIMESTAMP(3),
    `cancelled_at` TIMESTAMP(3),
    `metadata` MAP<STRING, STRING>,
    `request_counts` ROW<
      `total` BIGINT,
      `processing` BIGINT,
      `succeeded` BIGINT,
      `errored` BIGINT,
      `canceled` BIGINT,
      `expired` BIGINT
    >,
    `results_url` STRING,
    `error` ROW<
      `type` STRING,
      `title` STRING,
      `status` BIGINT,
      `detail` STRING,
      `instance` STRING
    >
  >,
  `additional_fields` MAP<STRING, STRING>,
  PRIMARY KEY (`event_key`) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'datagrid.batch_prediction.completed',
  'properties.bootstrap.servers' = '127.0.0.1:9092',
  'properties.group.id' = 'hookstream-example-flink',
  'key.format' = 'raw',
  'value.format' = 'avro-confluent',
  'value.avro-confluent.url' = 'http://127.0.0.1:8081',
  'value.fields-include' = 'EXCEPT_KEY'
);

CREATE TABLE document_changed (
  `event_key` STRING,             -- sha256: and a digest, since Grapevine sends no event id
  `id` STRING,
  `type` STRING,
  `source` STRING,
  `time` TIMESTAMP(3),            -- with more digits: additional_fields['/timestamp']
  `received_at` TIMESTAMP(3),
  `tenant_id` STRING,
  `data` ROW<`document_id` STRING, `source` STRING>,
  `additional_fields` MAP<STRING, STRING>,
  PRIMARY KEY (`event_key`) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'grapevine.document.changed',
  'properties.bootstrap.servers' = '127.0.0.1:9092',
  'properties.group.id' = 'hookstream-example-flink',
  'key.format' = 'raw',
  'value.format' = 'avro-confluent',
  'value.avro-confluent.url' = 'http://127.0.0.1:8081',
  'value.fields-include' = 'EXCEPT_KEY'
);

SELECT `event_key`, `time`, `data`.`status`, `data`.`request_counts`.`succeeded`, `data`.`results_url`
FROM batch_prediction_completed;

-- A field that the provider has added is in additional_fields, as JSON text, until the schema has it. Once the schema
-- and the table have it (`priority` STRING in `data`), read old and new records with both:
--
--   SELECT `event_key`,
--     COALESCE(`data`.`priority`, TRIM(BOTH '"' FROM `additional_fields`['/data/priority'])) AS priority
--   FROM batch_prediction_completed;
