-- Jira Data Center (8.x/9.x shape)
-- No foreign keys and no id defaults exist in the real database (ids come from the app).
create table cwd_directory (
  id numeric(18,0) primary key, directory_name varchar(255), lower_directory_name varchar(255),
  active numeric(9,0), directory_type varchar(60), directory_position numeric(18,0)
);  -- trimmed; only id/name/active/position matter here
create table app_user (
  id numeric(18,0) primary key,
  user_key varchar(255),           -- stable key; old users = old username, new users 'JIRAUSERnnnnn'
  lower_user_name varchar(255)
);
create unique index uk_user_key on app_user (user_key);
create unique index uk_lower_user_name on app_user (lower_user_name);
create table cwd_user (
  id numeric(18,0) primary key, directory_id numeric(18,0),
  user_name varchar(255), lower_user_name varchar(255),
  active numeric(9,0),             -- 1 / 0
  created_date timestamptz, updated_date timestamptz,
  first_name varchar(255), lower_first_name varchar(255),
  last_name varchar(255), lower_last_name varchar(255),
  display_name varchar(255), lower_display_name varchar(255),
  email_address varchar(255), lower_email_address varchar(255),
  credential varchar(255),
  deleted_externally numeric(9,0), external_id varchar(255)
);
create unique index uk_user_name_dir_id on cwd_user (lower_user_name, directory_id);
create table cwd_user_attributes (  -- plural, unlike every other Atlassian product
  id numeric(18,0) primary key, user_id numeric(18,0), directory_id numeric(18,0),
  attribute_name varchar(255), attribute_value varchar(255), lower_attribute_value varchar(255)
);
create index uk_user_attr_name_lval on cwd_user_attributes (user_id, attribute_name); -- NOT unique in Jira
create table remembermetoken (
  id numeric(18,0) primary key, created timestamptz, token varchar(255),
  username varchar(255)            -- holds app_user.user_key, not the username
);
create index remembermetoken_username_index on remembermetoken (username);
create table clusternode (
  node_id varchar(60) primary key, node_state varchar(60), "timestamp" numeric(18,0), ip varchar(60),
  cache_listener_port numeric(18,0), node_build_number numeric(18,0), node_version varchar(60)
);
create table clusternodeheartbeat (
  node_id varchar(60) primary key, heartbeat_time numeric(18,0), database_time numeric(18,0)
);
create table clustermessage (
  id numeric(18,0) primary key, source_node varchar(60), destination_node varchar(60),
  claimed_by_node varchar(60), message varchar(255), message_time timestamptz
);
