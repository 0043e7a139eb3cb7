SELECT choir_init() >= 1; -- 1
SELECT length(artifact_put('/notes/fox.md', 'The quick brown fox jumps over the lazy dog')); -- 36
SELECT length(artifact_put('/notes/pasta.md', 'Boil water, add salt, cook the spaghetti')); -- 36
SELECT length(message_add(conversation_create('Dinner'), 'user', 'What shall we cook?')); -- 36
SELECT path FROM choir_search('lazy foxes', 1); -- /notes/fox.md
SELECT vec_distance_cosine('[1, 0]', '[0, 1]') = 1; -- 1
SELECT count(*) FROM choir_doctor WHERE status = 'fail'; -- 0
